"""Positions by a learned order of patches (LOOPE, arXiv:2504.14386, section 3).

From the paper's text: a patch's place X is its step on a generalized Hilbert curve plus a context bias in (-1, 1) that
convolutions compute from the image and its coordinates; its embedding is sin(X w) and cos(X w) for fixed frequencies w.
What the text at hand leaves open and is ours: GELU between the convolutions, frequencies 10000^(-2i/dim), and maps of
another size than the linear layer's are resized for it. Shapes: b batch, c channels, n = H·W patches.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from mobilezoo.layers.tokens import Grid, resized

Vector = tuple[int, int]

WIDTHS = (32, 16, 8, 4, 1)
"""Channels behind the context bias's convolutions."""


class PatchOrder(nn.Module):
    """Image [b, in_chs, H·patch, W·patch] → embeddings of its patches [b, dim, H, W].

    Args:
        in_chs: channels of the image.
        dim: channels of the embeddings, an even number.
        patch: side of a patch in pixels.
        grid: rows and columns that the context's linear layer is made for.
    """

    def __init__(self, in_chs: int, dim: int, patch: int, grid: Grid) -> None:
        super().__init__()
        self.dim, self.patch, self.grid = dim, patch, grid
        self.image = nn.Conv2d(in_chs, WIDTHS[0], patch, patch)
        self.plane = nn.Conv2d(2, WIDTHS[0], patch, patch, bias=False)
        self.convs = nn.ModuleList(nn.Conv2d(wide, narrow, 5, padding=2) for wide, narrow in pairwise(WIDTHS))
        self.act = nn.GELU()
        self.norm = nn.BatchNorm2d(1)
        self.mix = nn.Linear(grid[0] * grid[1], grid[0] * grid[1])

    def forward(self, x: Tensor) -> Tensor:
        height, width = (int(side) // self.patch for side in x.shape[2:])
        speeds = 10000.0 ** (-torch.arange(0, self.dim, 2, device=x.device) / self.dim)
        steady = curve((height, width), x).reshape(-1, 1) * speeds  # n c/2
        # sin and cos of a sum, because the order's part is constant
        fixed_sin, fixed_cos = steady.sin().to(x.dtype), steady.cos().to(x.dtype)
        turn = self._context(x, height, width).reshape(-1, height * width, 1) * speeds.to(x.dtype)  # b n c/2
        sin, cos = turn.sin(), turn.cos()
        out = torch.cat([fixed_sin * cos + fixed_cos * sin, fixed_cos * cos - fixed_sin * sin], dim=2)
        return out.reshape(-1, height, width, self.dim).permute(0, 3, 1, 2)

    def _context(self, x: Tensor, height: int, width: int) -> Tensor:
        """The bias of every patch's place, [b, 1, H, W]."""
        bias = self.image(x) + self.plane(planes(height * self.patch, width * self.patch, x))
        for conv in self.convs:
            bias = conv(self.act(bias))
        bias = resized(self.norm(bias), self.grid)
        bias = self.mix(bias.reshape(-1, self.mix.in_features)).tanh()
        return resized(bias.reshape(-1, 1, *self.grid), (height, width))


def planes(height: int, width: int, like: Tensor) -> Tensor:
    """Coordinates of pixels from -1 to 1: [1, 2, height, width], columns first.

    Args:
        height: rows.
        width: columns.
        like: tensor whose dtype and device the planes get.
    """
    rows = torch.linspace(-1, 1, height, device=like.device, dtype=like.dtype)[:, None].expand(height, width)
    columns = torch.linspace(-1, 1, width, device=like.device, dtype=like.dtype)[None].expand(height, width)
    return torch.stack([columns, rows])[None]


def curve(grid: Grid, like: Tensor) -> Tensor:
    """Each cell's step on a space-filling curve, [1, 1, rows, columns] in float32.

    Args:
        grid: rows and columns.
        like: tensor whose device the map gets.
    """
    rows, columns = grid
    steps = torch.zeros(rows, columns)
    wide = columns >= rows
    cells = _walk((0, 0), (columns, 0), (0, rows)) if wide else _walk((0, 0), (0, rows), (columns, 0))
    for step, (column, row) in enumerate(cells):
        steps[row, column] = step
    return steps[None, None].to(like.device)


def _walk(start: Vector, along: Vector, across: Vector) -> list[Vector]:
    """Cells of a rectangle with sides `along` and `across`, in the order of a generalized Hilbert curve.

    As in Gilbert curves (J. Červený, github.com/jakubcerveny/gilbert): a long rectangle is cut into two along its
    length, any other into a half turned by 90°, a whole length and a half turned back; odd lengths are cut evenly
    so that the ends of the parts meet.
    """
    length, breadth = abs(sum(along)), abs(sum(across))
    ahead, aside = _unit(along), _unit(across)
    if breadth == 1:
        return [_plus(start, ahead, i) for i in range(length)]
    if length == 1:
        return [_plus(start, aside, i) for i in range(breadth)]
    half, beside = _half(along), _half(across)
    if 2 * length > 3 * breadth:
        if abs(sum(half)) % 2 and length > 2:
            half = _plus(half, ahead)
        return _walk(start, half, across) + _walk(_plus(start, half), _plus(along, half, -1), across)
    if abs(sum(beside)) % 2 and breadth > 2:
        beside = _plus(beside, aside)
    last = _plus(_plus(start, _plus(along, ahead, -1)), _plus(beside, aside, -1))
    back_across, back_along = _plus((0, 0), beside, -1), _plus(half, along, -1)
    return (
        _walk(start, beside, half)
        + _walk(_plus(start, beside), along, _plus(across, beside, -1))
        + _walk(last, back_across, back_along)
    )


def _plus(first: Vector, second: Vector, times: int = 1) -> Vector:
    return first[0] + times * second[0], first[1] + times * second[1]


def _half(vector: Vector) -> Vector:
    return vector[0] // 2, vector[1] // 2


def _unit(vector: Vector) -> Vector:
    first, second = ((part > 0) - (part < 0) for part in vector)
    return first, second
