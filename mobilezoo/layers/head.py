"""Norm → global pool → dropout → one or two linear classifiers."""

import copy

import torch
from timm.layers import LayerNorm2d, SelectAdaptivePool2d, trunc_normal_
from torch import Tensor, nn

from mobilezoo.errors import ConfigError
from mobilezoo.layers.foldable import affine_of


class NormHead(nn.Module):
    """The end of a classifier.

    With `distillation` a second classifier (`fc_dist`) learns from a teacher, as in DeiT (arXiv:2012.12877 §4): in
    eval mode, and in training unless `distilled_training` is set, the output is the mean of both; with it, training
    returns the pair. Raises ConfigError for a pool that timm does not have or that changes the width.
    """

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        norm: nn.Module,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        distillation: bool = False,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.distillation = distillation
        self.distilled_training = False
        self.norm = norm
        self.drop = nn.Dropout(drop_rate)
        self.reset(num_classes, global_pool)

    def reset(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifiers by fresh ones, and the pool if one is named.

        Args:
            num_classes: outputs of each classifier; 0 leaves identities.
            global_pool: avg, max, avgmax, or "" for no pooling; None keeps the pool.

        Raises:
            ConfigError: timm has no such pool, it changes the width, or a classifier would get a map.
        """
        if global_pool is not None:
            self.pool = _pool(global_pool, num_classes)
        like = next(self.norm.parameters(), torch.empty(0))
        self.fc = self._classifier(num_classes).to(like).train(self.training)
        self.fc_dist = self._classifier(num_classes).to(like).train(self.training) if self.distillation else None

    def _classifier(self, num_classes: int) -> nn.Module:
        if num_classes <= 0:
            return nn.Identity()
        fc = nn.Linear(self.num_features, num_classes)
        trunc_normal_(fc.weight, std=0.02)
        nn.init.zeros_(fc.bias)
        return fc

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Feature map → logits [B, num_classes].

        Two classifiers give their mean, or in training the pair (class, distillation) if `distilled_training` is set.

        Args:
            x: [B, num_features, H, W].
            pre_logits: return the classifiers' input [B, num_features] instead.
        """
        x = self.drop(self.pool(self.norm(x)))
        if pre_logits:
            return x
        if self.fc_dist is None:
            return self.fc(x)
        both = self.fc(x), self.fc_dist(x)
        return both if self.training and self.distilled_training else (both[0] + both[1]) / 2

    def fuse(self) -> "NormHead":
        """Two classifiers averaged into one, and the norm's affine part folded into it where pooling is a mean."""
        fused = copy.deepcopy(self)
        if not isinstance(self.fc, nn.Linear) or not isinstance(fused.fc, nn.Linear):
            return fused
        weight, bias = _double(self.fc)
        if isinstance(self.fc_dist, nn.Linear):
            other_weight, other_bias = _double(self.fc_dist)
            weight, bias = (weight + other_weight) / 2, (bias + other_bias) / 2
            fused.fc_dist, fused.distillation = None, False
        if self.pool.pool_type in ("avg", "fast", "fastavg"):
            weight, bias, fused.norm = _fold_affine(weight, bias, self.norm)
        fused.fc.weight.data.copy_(weight)
        fused.fc.bias.data.copy_(bias)
        return fused


class PoolNormHead(NormHead):
    """Global pool → norm → dropout → classifier; `norm` is a norm of maps, [B, C, H, W]."""

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """Feature map → logits [B, num_classes].

        Args:
            x: [B, num_features, H, W].
            pre_logits: return the classifier's input [B, num_features] instead.
        """
        x = self.pool(x)
        x = self.drop(self.norm(x) if x.ndim == 4 else self.norm(x[:, :, None, None]).flatten(1))
        return x if pre_logits else self.fc(x)

    def fuse(self) -> "PoolNormHead":
        """The norm's affine part folded into the classifier, whatever the pool."""
        fused = copy.deepcopy(self)
        if isinstance(self.fc, nn.Linear) and isinstance(fused.fc, nn.Linear):
            weight, bias, fused.norm = _fold_affine(*_double(self.fc), self.norm)
            fused.fc.weight.data.copy_(weight)
            fused.fc.bias.data.copy_(bias)
        return fused


def _pool(global_pool: str, num_classes: int) -> SelectAdaptivePool2d:
    if not global_pool and num_classes > 0:
        raise ConfigError(
            f"global_pool='' leaves a map, which a classifier of {num_classes} cannot take: num_classes=0"
        )
    try:
        pool = SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
    except AssertionError:
        raise ConfigError(f"global_pool={global_pool!r}: expected avg, max, avgmax or ''") from None
    if pool.feat_mult() != 1:
        raise ConfigError(f"global_pool={global_pool!r} changes the number of features: use avg, max or avgmax")
    return pool


def _fold_affine(weight: Tensor, bias: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor, nn.Module]:
    """Classifier weights that include the norm's affine part, and what is left of the norm."""
    if isinstance(norm, nn.BatchNorm2d):
        scale, shift = affine_of(norm)
        return weight * scale, bias + weight @ shift, nn.Identity()
    if isinstance(norm, LayerNorm2d) and norm.weight is not None:
        plain = LayerNorm2d(norm.weight.shape[0], eps=norm.eps, affine=False).train(norm.training)
        scale, shift = norm.weight.detach().double(), norm.bias.detach().double()
        return weight * scale, bias + weight @ shift, plain
    return weight, bias, norm


def _double(fc: nn.Linear) -> tuple[Tensor, Tensor]:
    return fc.weight.detach().double(), fc.bias.detach().double()
