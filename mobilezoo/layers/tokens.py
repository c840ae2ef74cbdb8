"""Token sequences with a class token, as maps of one column: [b, c, n, 1].

So 1×1 convolutions, channel norms and head cuts of feature maps serve them as they are, and phones keep channels
innermost. The class token stands first, or last where attention is causal.
"""

import torch
from timm.layers import SelectAdaptivePool2d, trunc_normal_
from torch import Tensor, nn
from torch.nn import functional as F

from mobilezoo.layers.head import PoolNormHead
from mobilezoo.layers.size import check_input_size

Grid = tuple[int, int]
"""Rows and columns of the patches."""


def patches_of(tokens: Tensor, grid: Grid, last: bool = False) -> Tensor:
    """The patches of a sequence as a map [b, c, H, W].

    Args:
        tokens: sequence [b, c, H·W + 1, 1].
        grid: H and W.
        last: the class token stands last instead of first.
    """
    count = grid[0] * grid[1]
    return tokens.narrow(2, 0 if last else 1, count).reshape(-1, tokens.shape[1], *grid)


def token_of(tokens: Tensor, last: bool = False) -> Tensor:
    """The class token [b, c, 1, 1] of a sequence.

    Args:
        tokens: sequence [b, c, n, 1].
        last: the class token stands last instead of first.
    """
    return tokens.narrow(2, tokens.shape[2] - 1 if last else 0, 1)


def join_token(token: Tensor, patches: Tensor, last: bool = False) -> Tensor:
    """Sequence [b, c, H·W + 1, 1] of a class token and patches; the inverse of `token_of` and `patches_of`.

    Args:
        token: [b, c, 1, 1].
        patches: [b, c, H, W].
        last: put the class token last instead of first.
    """
    flat = patches.reshape(-1, patches.shape[1], patches.shape[2] * patches.shape[3], 1)
    return torch.cat([flat, token] if last else [token, flat], dim=2)


def resized(table: Tensor, grid: Grid) -> Tensor:
    """Resize a learned map for a map of another size (bilinear, half pixels).

    Args:
        table: [..., c, h, w].
        grid: rows and columns of the result; the table itself is returned where it has them.
    """
    return table if table.shape[-2:] == grid else F.interpolate(table, grid, mode="bilinear", align_corners=False)


def learned(*shape: int) -> nn.Parameter:
    """A table of normal values of deviation 0.02."""
    return nn.Parameter(trunc_normal_(torch.zeros(shape), std=0.02))


class TokenStem(nn.Module):
    """Patches, learned positions, class token; what does not fill a patch is left out."""

    def __init__(self, in_chs: int, dim: int, patch: int, grid: Grid, last: bool = False) -> None:
        super().__init__()
        self.patch, self.last = patch, last
        self.conv = nn.Conv2d(in_chs, dim, patch, patch)
        self.position = learned(1, dim, *grid)
        self.class_token = learned(1, dim, 1, 1)
        self.class_position = learned(1, dim, 1, 1)

    def grid_of(self, x: Tensor) -> Grid:
        """Patches of an image [b, c, H, W]."""
        return x.shape[2] // self.patch, x.shape[3] // self.patch

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, self.patch)
        patches = self.conv(x)
        patches = patches + resized(self.position, (patches.shape[2], patches.shape[3]))
        token = (self.class_token + self.class_position).expand(patches.shape[0], -1, -1, -1)
        return join_token(token, patches, self.last)


class TokenHead(PoolNormHead):
    """Class token (`global_pool="token"`) or a pool over the patches → norm → dropout → classifier."""

    def __init__(
        self, num_features: int, num_classes: int, norm: nn.Module, global_pool: str, drop_rate: float, last: bool
    ) -> None:
        self.last = last
        super().__init__(num_features, num_classes, norm, global_pool, drop_rate)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one, and the pool if one is named.

        Args:
            num_classes: outputs of the classifier; 0 leaves the identity.
            global_pool: token, avg, max, avgmax, or "" for no pooling; None keeps the pool.
        """
        super().reset(num_classes, "avg" if global_pool == "token" else global_pool)
        if global_pool == "token":
            self.pool = TokenPool(self.last)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Sequence → logits [B, num_classes].

        Args:
            x: [B, num_features, n, 1].
            pre_logits: return the classifier's input [B, num_features] instead.
        """
        if self.pool.pool_type and not isinstance(self.pool, TokenPool):
            x = x.narrow(2, 0 if self.last else 1, x.shape[2] - 1)
        return super().forward(x, pre_logits)


class TokenPool(SelectAdaptivePool2d):
    """Takes the class token."""

    def __init__(self, last: bool) -> None:
        super().__init__(pool_type="avg", flatten=True)
        self.pool_type, self.last = "token", last

    def forward(self, x: Tensor) -> Tensor:
        return token_of(x, self.last).flatten(1)
