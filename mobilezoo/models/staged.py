"""What networks of the form stem → stages → head have in common, in timm's manner."""

from typing import Any

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


class StagedNet(nn.Module):
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

    @property
    def global_pool(self) -> str:
        return str(self.head.pool.pool_type)

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

    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        return self.head.fc if self.head.fc_dist is None else (self.head.fc, self.head.fc_dist)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """[b, in_chans, H, W] → [b, num_features, H/stride, W/stride], before the head's norm."""
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
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
        """Stage outputs (timm's contract): `norm` applies the head's norm to the last stage only."""
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

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of `indices`, and the head's norm and classifier; returns the indices kept."""
        take, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_norm:
            self.head.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        kept: list[int] = take
        return kept


def drop_path_rates(rate: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Stochastic-depth probability per block and stage, rising linearly from 0 to `rate`."""
    total, done, result = sum(depths), 0, []
    for depth in depths:
        result.append([rate * (done + j) / max(1, total - 1) for j in range(depth)])
        done += depth
    return result


def build_staged(cls: type[StagedNet], config: ModelConfig, stages: int, **kwargs: Any) -> nn.Module:
    """A `cls` as timm builds its models, or timm's feature extractor around one for `features_only=True`."""
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
    """The same for any class; `features` are timm's arguments for the feature extractor."""
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
