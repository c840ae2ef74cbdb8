"""Rotary position embedding of a feature map (RoFormer, arXiv:2104.09864, section 3.2, in two dimensions).

Half of a head's channels turn with the row, half with the column. The two channels of a pair lie half a head apart, so
that a rotation is two slices and a join; official weights that keep pairs side by side are reordered once by
`pairs_to_halves`, which changes no product of queries and keys.
"""

import torch
from torch import Tensor


def rotary_tables(height: int, width: int, head_dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations of a map's positions: angles 10000^-linspace(0, 1, head_dim / 4) per row, then per column.

    Args:
        height: rows H.
        width: columns W.
        head_dim: channels per head, a multiple of 4.
        like: tensor whose dtype and device the tables get.

    Returns:
        (cos, sin), each [H·W, head_dim / 2].
    """
    speeds = 1.0 / 10000 ** torch.linspace(0, 1, head_dim // 4, device=like.device)
    rows = torch.arange(height, device=like.device)[:, None] * speeds
    columns = torch.arange(width, device=like.device)[:, None] * speeds
    by_row = rows[:, None].expand(height, width, -1)
    by_column = columns[None].expand(height, width, -1)
    angles = torch.cat([by_row, by_column], dim=-1).reshape(height * width, -1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn every pair of channels by its position's angle; the output has the shape of `x`.

    Args:
        x: queries or keys [b·h, n, d], pairs half a head apart.
        cos: [n, d / 2].
        sin: [n, d / 2].
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def pairs_to_halves(rows: Tensor, heads: int) -> Tensor:
    """Reorder channels from pairs side by side to pairs half a head apart.

    Args:
        rows: weight or bias whose output channels [h·d, ...] are reordered head by head.
        heads: h.
    """
    by_pair = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return by_pair.transpose(1, 2).reshape(rows.shape)


def sequence_tables(tokens: int, head_dim: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Rotations of a sequence's positions: angles 10000^(-2i / head_dim) per position.

    Args:
        tokens: length of the sequence.
        head_dim: channels per head, an even number.
        like: tensor whose dtype and device the tables get.

    Returns:
        (cos, sin), each [tokens, head_dim / 2].
    """
    speeds = 10000.0 ** (-torch.arange(0, head_dim, 2, device=like.device) / head_dim)
    angles = torch.arange(tokens, device=like.device)[:, None] * speeds
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)
