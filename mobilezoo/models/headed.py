"""What timm expects of a classifier, for networks whose end is a head of ours."""

from typing import ClassVar

from timm.models._features import feature_take_indices
from torch import Tensor, nn

from mobilezoo.layers.head import NormHead


class HeadedNet(nn.Module):
    """Base of networks of levels (stages or blocks) that end with a head.

    Subclasses set `head`, `in_chans`, `num_features` and `feature_info`, and `levels`, the name of the submodule that
    holds the levels.
    """

    levels: ClassVar[str] = "stages"
    head: NormHead
    num_classes: int

    @property
    def global_pool(self) -> str:
        return str(self.head.pool.pool_type)

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        return self.head.fc if self.head.fc_dist is None else (self.head.fc, self.head.fc_dist)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers by fresh ones, and the pool if one is named.

        Args:
            num_classes: outputs of each classifier; 0 leaves pooled features.
            global_pool: as in `NormHead.reset`; None keeps the pool.
        """
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images [b, in_chans, H, W] → what the head takes, before its norm."""
        raise NotImplementedError

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Result of `forward_features` → logits [b, num_classes], or a pair of them as in `NormHead.forward`.

        Args:
            x: what `forward_features` returns.
            pre_logits: return the classifiers' input instead.
        """
        out: Tensor | tuple[Tensor, Tensor] = self.head(x, pre_logits=pre_logits)
        return out

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Run the network without its head and keep the outputs of some levels (timm's contract).

        Args:
            x: images [b, in_chans, H, W].
            indices: levels to keep: their indices, a number for as many last ones, None for all.
            norm: apply the head's norm, where a level is one that the head may follow.
            stop_early: leave out the levels behind the last one kept.
            output_fmt: NCHW; there is no other.
            intermediates_only: return the kept maps alone.

        Returns:
            (output of the last level that ran, kept maps [b, c, h, w]), or the kept maps.
        """
        raise NotImplementedError

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the levels that `forward_intermediates` does not need (timm's contract).

        Args:
            indices: levels to keep: their indices, or a number for as many last ones; those behind them are dropped.
            prune_norm: replace the head's norm by the identity.
            prune_head: drop the classifier and the pool.

        Returns:
            The indices of the levels kept.
        """
        every = getattr(self, self.levels)
        take, last = feature_take_indices(len(every), indices)
        setattr(self, self.levels, every[: last + 1])
        if prune_norm:
            self.head.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        kept: list[int] = take
        return kept
