"""What networks of the form stem → stages → head have in common, in timm's manner."""

from typing import Any, ClassVar

from timm.models import build_model_with_cfg, checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from mobilezoo.layers.head import NormHead
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.headed import HeadedNet


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


class Pyramid(StagedNet):
    """A staged network of a config that has `widths` and `depths`; a subclass makes the parts of its family.

    Parts are functions of the config alone. They are made in the order stages, stem, head, which the random initial
    weights depend on.
    """

    head_class: ClassVar[type[NormHead]] = NormHead
    stem_stride: ClassVar[int] = 4

    def __init__(
        self,
        cfg: Any,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        rates = drop_path_rates(drop_path_rate, self.depths(cfg))
        stages = [self.make_stage(cfg, i, rates[i]) for i in range(len(cfg.widths))]
        stem = self.make_stem(cfg, in_chans)
        head = self.head_class(cfg.widths[-1], num_classes, self.make_norm(cfg), global_pool, drop_rate)
        super().__init__(stem, stages, head, widths=cfg.widths, stride=self.stem_stride)

    @staticmethod
    def depths(cfg: Any) -> tuple[int, ...]:
        """Blocks per stage that stochastic depth counts."""
        depths: tuple[int, ...] = cfg.depths
        return depths

    @staticmethod
    def make_stem(cfg: Any, in_chans: int) -> nn.Module:
        """Everything in front of the first stage: [b, in_chans, H, W] → [b, stem channels, H / stride, W / stride].

        Args:
            cfg: the architecture.
            in_chans: channels of the images.
        """
        raise NotImplementedError

    @staticmethod
    def make_stage(cfg: Any, stage: int, rates: list[float]) -> Stage:
        """Downsampling and blocks of one stage.

        Args:
            cfg: the architecture.
            stage: its index, from 0.
            rates: stochastic-depth probability of each block.
        """
        raise NotImplementedError

    @staticmethod
    def make_norm(cfg: Any) -> nn.Module:
        """The norm behind the last stage, which belongs to the head."""
        raise NotImplementedError


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
