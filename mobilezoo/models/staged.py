"""What networks of the form stem → stages → head have in common, in timm's manner."""

from typing import Any, ClassVar

from timm.models import build_model_with_cfg, checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from mobilezoo.layers.head import NormHead
from mobilezoo.models.base import ModelConfig


class Stage(nn.Module):
    """A downsampling layer (or none) and blocks of one resolution."""

    def __init__(self, blocks: list[nn.Module], downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample or nn.Identity()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and self.training:
            out: Tensor = checkpoint_seq(self.blocks, x)
            return out
        return self.blocks(x)


class HeadedNet(nn.Module):
    """What timm expects of a classifier, for networks of levels (stages or blocks) and a head of ours.

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


class StagedNet(HeadedNet):
    """A backbone whose stages each halve the map; the head holds the final norm, pooling and classifiers.

    `stem_stride` is the stride of the first stage's output before any further halving, `stem` checks the input's size.
    """

    def __init__(
        self, stem: nn.Module, stages: list[Stage], head: NormHead, widths: tuple[int, ...], stride: int
    ) -> None:
        super().__init__()
        self.in_chans = next(layer.in_channels for layer in stem.modules() if isinstance(layer, nn.Conv2d))
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.head = head
        self.num_features = self.head_hidden_size = widths[-1]
        self.feature_info = [
            {"num_chs": width, "reduction": stride * 2**i, "module": f"stages.{i}"} for i, width in enumerate(widths)
        ]
        self.num_classes = head.fc.out_features if isinstance(head.fc, nn.Linear) else 0

    @staticmethod
    def group_matcher(coarse: bool = False) -> dict[str, Any]:
        """timm's parameter groups for layer-wise learning rates."""
        fine = [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^head\.norm", (99999,)),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else fine}

    def no_weight_decay(self) -> set[str]:
        """LayerScale factors; timm exempts biases and norms by itself."""
        return {name for name, _ in self.named_parameters() if name.endswith(".gamma")}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for stage in self.stages:
            stage.grad_checkpointing = enable  # type: ignore[assignment]

    def set_distilled_training(self, enable: bool = True) -> None:
        """Return (class, distillation) logits in training, where the network has two heads."""
        self.head.distilled_training = enable

    def forward_features(self, x: Tensor) -> Tensor:
        """[b, in_chans, H, W] → [b, num_features, H/stride, W/stride], before the head's norm."""
        return self.stages(self.stem(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        assert output_fmt == "NCHW", "output is NCHW only"
        take, last = feature_take_indices(len(self.stages), indices)
        kept = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if stop_early and i > last:
                break
            x = stage(x)
            if i in take:
                kept.append(self.head.norm(x) if norm and i == len(self.stages) - 1 else x)
        return kept if intermediates_only else (x, kept)


def drop_path_rates(rate: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Stochastic-depth probability per stage and block, rising linearly.

    Args:
        rate: probability of the last block; the first has 0.
        depths: blocks per stage.
    """
    total, done, result = sum(depths), 0, []
    for depth in depths:
        result.append([rate * (done + j) / max(1, total - 1) for j in range(depth)])
        done += depth
    return result


def build_staged(cls: type[StagedNet], config: ModelConfig, stages: int, **kwargs: Any) -> nn.Module:
    """Build a staged network as timm builds its models, or timm's feature extractor around one for `features_only`.

    Args:
        cls: class of the network, called with `cfg=config`.
        config: the architecture.
        stages: number of stages, all of which are features by default.
        kwargs: `classifier` and `first_conv` of `build_network`, and timm's arguments.
    """
    features = {"out_indices": tuple(range(stages)), "flatten_sequential": True}
    return build_network(cls, config, features, **kwargs)


def build_network(
    cls: type[nn.Module],
    config: ModelConfig,
    features: dict[str, Any],
    classifier: str | tuple[str, ...] = "head.fc",
    first_conv: str = "stem.conv1.conv",
    **kwargs: Any,
) -> nn.Module:
    """Build any network as timm builds its models, or timm's feature extractor around one for `features_only`.

    Args:
        cls: class of the network, called with `cfg=config`.
        config: the architecture.
        features: timm's arguments for the feature extractor (`feature_cfg`).
        classifier: name of the classifier, or names of both.
        first_conv: name of the convolution that the input's channels meet.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`, and the network's own.
    """
    network: nn.Module = build_model_with_cfg(
        cls,
        config.name or config.family,
        pretrained=False,
        pretrained_cfg=config.pretrained_cfg(first_conv=first_conv, classifier=classifier),
        model_cfg=config,
        feature_cfg=features,
        **kwargs,
    )
    return network
