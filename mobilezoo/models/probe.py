"""Efficient probing: a frozen backbone whose feature map is pooled by learned queries instead of a mean.

Source: the code of billpsomas/efficient-probing (Apache-2.0), as described in its README: queries look at the raw
tokens (no key projection), values are one projection cut into a slice per query. Here everything stays 4-D, so that
phone formats take it; the BatchNorm before the classifier is the one of masked autoencoders' probing.
"""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mobilezoo.errors import ConfigError
from mobilezoo.models.base import ModelConfig
from mobilezoo.models.factory import build
from mobilezoo.models.weights import channels_of, classes_of, tensors_of

PROBE_KEY = "probe.queries.weight"
"""Of every saved network with a probe."""


class EfficientProbe(nn.Module):
    """Feature map [B, C, H, W] → logits [B, K]; query i pools slice i of the values (C / `reduction` channels)."""

    def __init__(self, channels: int, queries: int, num_classes: int, reduction: int = 1) -> None:
        super().__init__()
        if channels % (queries * reduction):
            raise ConfigError(f"probe_queries={queries} does not divide the {channels} channels of the feature map")
        width = channels // reduction
        self.queries = nn.Conv2d(channels, queries, 1, bias=False)
        nn.init.normal_(self.queries.weight, std=channels**-0.5)
        self.values = nn.Conv2d(channels, width, 1, bias=False)
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.fc = nn.Linear(width, num_classes)

    def pool(self, x_bchw: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C / reduction]."""
        attn_bm1n = self.queries(x_bchw).flatten(2).softmax(dim=-1).unsqueeze(2)
        values = self.values(x_bchw)
        values_bmcn = values.reshape(values.shape[0], attn_bm1n.shape[1], -1, attn_bm1n.shape[-1])
        return (values_bmcn * attn_bm1n).sum(dim=-1).flatten(1)

    def forward(self, x_bchw: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.norm(self.pool(x_bchw)))
        return logits


class ProbedNet(nn.Module):
    """A backbone without its classifier, and a probe on its feature map."""

    def __init__(self, backbone: nn.Module, queries: int, num_classes: int) -> None:
        super().__init__()
        net: Any = backbone
        net.reset_classifier(0)
        self.backbone = backbone
        self.probe = EfficientProbe(int(net.num_features), queries, num_classes)
        self.num_classes = num_classes
        self.in_chans = channels_of(net)
        stem = net.pretrained_cfg["first_conv"]
        self.pretrained_cfg = {**net.pretrained_cfg, "classifier": "probe.fc", "first_conv": f"backbone.{stem}"}

    def get_classifier(self) -> nn.Module:
        return self.probe

    def forward(self, x_bchw: Tensor) -> Tensor:
        backbone: Any = self.backbone
        logits: Tensor = self.probe(backbone.forward_features(x_bchw))
        return logits


def build_probed(
    config: ModelConfig, checkpoint: str | Path | None, queries: int, *, key: str | None = None, **kwargs: Any
) -> ProbedNet:
    """Build a probe on a backbone with weights, or load what a probing run saved.

    Args:
        config: architecture of the backbone.
        checkpoint: the backbone's weights or a saved probed network; None for random weights.
        queries: learned queries; a divisor of the feature map's channels.
        key: dotted path of the weights in the file; None to find them.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.

    Raises:
        ConfigError: the queries do not divide the channels.
        CheckpointError: the file cannot be read or does not fit.
    """
    from mobilezoo.models.checkpoint import load_checkpoint

    backbone = build(config, **kwargs)
    classes = classes_of(backbone)
    probed = checkpoint is not None and any(name.endswith(PROBE_KEY) for name in tensors_of(checkpoint, key))
    if checkpoint is not None and not probed:
        load_checkpoint(backbone, config, checkpoint, key=key, reset_head=True)
    network = ProbedNet(backbone, queries, classes)
    if checkpoint is not None and probed:
        load_checkpoint(network, config, checkpoint, key=key)
    return network


def freeze_all_but_head(network: nn.Module) -> None:
    """Only the classifier (or probe) learns: what linear and efficient probing mean."""
    net: Any = network
    network.requires_grad_(False)
    for head in heads_of(net):
        head.requires_grad_(True)


def heads_of(network: Any) -> list[nn.Module]:
    """The classifier; both where there are two."""
    found = network.get_classifier()
    return list(found) if isinstance(found, tuple | list) else [found]


def train_heads_only(network: nn.Module) -> None:
    """Batch statistics of the frozen part stay as they are."""
    network.eval()
    for head in heads_of(network):
        head.train()
