"""RAVLT: linear attention whose keys and outputs are given full rank again, in early stages; softmax in late ones.

Paper: "Breaking the Low-Rank Dilemma of Linear Attention", CVPR 2025, arXiv:2411.07635 (RALA, section 3; RAVLT).
Official code: qhfan/RALA; its repository states no license, the Hugging Face card of its weights states MIT.

Where it differs from the official code, and why: queries, keys, values and the output's gate are cut by the weights of
their projection, and rotary pairs lie half a head apart (see `layers/rotary.py`), which changes no result.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from timm.layers import DropPath, LayerNorm2d, LayerScale2d
from torch import Tensor, nn

from mobilezoo.layers.foldable import ConvNorm, SplitConv
from mobilezoo.layers.head import NormHead
from mobilezoo.layers.map_attention import from_heads, to_heads
from mobilezoo.layers.rotary import pairs_to_halves, rotary_tables, rotate
from mobilezoo.layers.size import check_input_size
from mobilezoo.models.base import ModelConfig, one_per_stage
from mobilezoo.models.renames import Renames
from mobilezoo.models.staged import Stage, StagedNet, build_staged, drop_path_rates

STEM_STRIDE = 4


class Config(ModelConfig):
    """A RAVLT as data."""

    family: Literal["ravlt"]
    widths: tuple[int, ...] = Field(min_length=1, description="channels per stage")
    depths: tuple[int, ...] = Field(description="blocks per stage")
    heads: tuple[int, ...] = Field(description="attention heads per stage; a head has a multiple of 4 channels")
    attention: tuple[Literal["rala", "softmax"], ...] = Field(description="kind of attention per stage")
    mlp_ratios: tuple[float, ...] = Field(description="hidden width of feed-forward parts over the block's, per stage")
    layer_scales: tuple[float, ...] = Field(description="initial LayerScale per stage")
    head_width: int = Field(default=1024, gt=0, description="channels before the classifier")

    _one_per_stage = one_per_stage("depths", "heads", "attention", "mlp_ratios", "layer_scales")


class Stem(nn.Module):
    """Four 3×3 convolutions; the first and the last halve the map."""

    def __init__(self, in_chs: int, out_chs: int) -> None:
        super().__init__()
        half = out_chs // 2
        self.conv1 = ConvNorm(in_chs, half, 3, stride=2, bias=True)
        self.conv2 = ConvNorm(half, half, 3, bias=True)
        self.conv3 = ConvNorm(half, half, 3, bias=True)
        self.conv4 = ConvNorm(half, out_chs, 3, stride=2, bias=True)
        self.act1, self.act2, self.act3 = nn.GELU(), nn.GELU(), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        check_input_size(x, 1)
        return self.conv4(self.act3(self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))))


class GatedAttention(nn.Module):
    """project((attention + local values) · gate) on [b, dim, H, W]; subclasses implement `attend`."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = (dim // num_heads) ** -0.5
        self.qkvo: nn.Module = SplitConv(None, dim, dim, parts=4, bias=True)
        self.local = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.proj = nn.Conv2d(dim, dim, 1)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """The attention itself: [b·h, n, d] → [b·h, n, d].

        Args:
            q: queries [b·h, n, d].
            k: keys, same shape.
            v: values, same shape.
            cos: rotary table [n, d / 2].
            sin: rotary table [n, d / 2].
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        q_map, k_map, v_map, gate = self.qkvo(x)
        q, k, v = (to_heads(part, self.num_heads) for part in (q_map, k_map, v_map))
        cos, sin = rotary_tables(height, width, q.shape[-1], q)
        out = from_heads(self.attend(q, k, v, cos, sin), self.num_heads, height, width)
        return self.proj((out + self.local(v_map)) * gate)

    def fuse(self) -> "GatedAttention":
        """Projections as convolutions of their own."""
        fused = copy.deepcopy(self)
        if isinstance(fused.qkvo, SplitConv):
            fused.qkvo = fused.qkvo.fuse()
        return fused


class RankAugmentedAttention(GatedAttention):
    """RALA: every key weighs as much as the mean query likes it, so that the buffer kᵀv is no mean of equal parts."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        tokens = q.shape[1]
        q, k = nn.functional.elu(q) + 1.0, nn.functional.elu(k) + 1.0
        liked = torch.bmm(k, q.mean(dim=1, keepdim=True).transpose(1, 2)) * self.scale  # (b h) n 1
        k = k * (liked.softmax(dim=1) * float(tokens))
        norm = torch.bmm(q, k.mean(dim=1, keepdim=True).transpose(1, 2)) + 1e-6  # (b h) n 1
        buffer = torch.bmm(rotate(k, cos, sin).transpose(1, 2) * (1.0 / tokens), v)  # (b h) d d
        return torch.bmm(rotate(q, cos, sin), buffer) / norm


class SoftmaxAttention(GatedAttention):
    """Attention with rotary positions."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        q, k = rotate(q * self.scale, cos, sin), rotate(k, cos, sin)
        return torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(dim=-1), v)


KINDS: dict[str, type[GatedAttention]] = {"rala": RankAugmentedAttention, "softmax": SoftmaxAttention}


class ConvMlp(nn.Module):
    """1×1 → GELU → (identity + depthwise 3×3) → 1×1."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.dw = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc1(x))
        return self.fc2(x + self.dw(x))


class Block(nn.Module):
    """Depthwise position encoding, attention, feed-forward part: three residual branches."""

    def __init__(self, stage: int, config: Config, drop_path: float) -> None:
        super().__init__()
        dim, init_scale = config.widths[stage], config.layer_scales[stage]
        self.pos = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = LayerNorm2d(dim, eps=1e-6)
        self.attn = KINDS[config.attention[stage]](dim, config.heads[stage])
        self.scale1 = LayerScale2d(dim, init_scale)
        self.norm2 = LayerNorm2d(dim, eps=1e-6)
        self.mlp = ConvMlp(dim, int(dim * config.mlp_ratios[stage]))
        self.scale2 = LayerScale2d(dim, init_scale)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos(x)
        x = x + self.drop_path(self.scale1(self.attn(self.norm1(x))))
        return x + self.drop_path(self.scale2(self.mlp(self.norm2(x))))


class Ravlt(StagedNet):
    """RAVLT for classification; `feature_info` lists the stages' outputs at strides 4, 8, 16, 32."""

    def __init__(
        self,
        cfg: Config,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        stages = []
        for i, rates in enumerate(drop_path_rates(drop_path_rate, cfg.depths)):
            down = ConvNorm(cfg.widths[i - 1], cfg.widths[i], 3, stride=2, bias=True) if i > 0 else None
            stages.append(Stage([Block(i, cfg, rate) for rate in rates], down))
        norm = nn.Sequential(ConvNorm(cfg.widths[-1], cfg.head_width, bias=True), nn.SiLU())
        super().__init__(
            Stem(in_chans, cfg.widths[0]),
            stages,
            NormHead(cfg.head_width, num_classes, norm, global_pool, drop_rate),
            widths=cfg.widths,
            stride=STEM_STRIDE,
        )
        self.head_hidden_size = cfg.head_width


def build(config: Config, **kwargs: Any) -> nn.Module:
    """Build a Ravlt; see `build_staged`.

    Args:
        config: the architecture.
        kwargs: timm's arguments: `num_classes`, `in_chans`, `drop_rate`, `drop_path_rate`, `global_pool`,
            `features_only`, `out_indices`.
    """
    return build_staged(Ravlt, config, len(config.depths), **kwargs)


_STEM = {"0": "conv1.conv", "1": "conv1.norm", "3": "conv2.conv", "4": "conv2.norm"}
_STEM |= {"6": "conv3.conv", "7": "conv3.norm", "9": "conv4.conv", "10": "conv4.norm"}
_RENAMES = Renames(
    (r"^layers\.", "stages."),
    (r"\.downsample\.reduction\.", ".downsample.conv."),
    (r"\.gamma_([12])$", r".scale\1.gamma"),
    (r"\.norm([12])\.norm\.", r".norm\1."),
    (r"\.attn\.qkvo\.", ".attn.qkvo.conv."),
    (r"\.attn\.lepe\.", ".attn.local."),
    (r"\.ffn\.dwconv\.", ".mlp.dw."),
    (r"\.ffn\.", ".mlp."),
    (r"^proj\.", "head.norm.0.conv."),
    (r"^norm\.", "head.norm.0.norm."),
    (r"^head\.(?=weight|bias)", "head.fc."),
)


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`RAVLT_*`) state dict and reorder its rotary pairs; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("patch_embed.proj.") for key in state_dict):
        return dict(state_dict)
    heads = {name: m.num_heads for name, m in model.named_modules() if isinstance(m, GatedAttention)}
    renamed = {}
    for key, value in state_dict.items():
        if key.endswith(".RoPE.angle"):
            continue  # a constant of the head's width
        new = _rename(key)
        if ".attn.qkvo." in new and (owner := new.rpartition(".qkvo.")[0]) in heads:
            value = halve_rotary_pairs(value, heads[owner])
        elif new.endswith(".gamma") or new == "head.fc.weight":
            value = value.flatten(1) if new == "head.fc.weight" else value.flatten()
        renamed[new] = value
    return renamed


def halve_rotary_pairs(qkvo: Tensor, heads: int) -> Tensor:
    """Official joint projection → ours, pairs of queries and keys half a head apart.

    Args:
        qkvo: [4·h·d, ...]: queries, keys, values and gate.
        heads: h.
    """
    q, k, v, o = qkvo.chunk(4)
    return torch.cat([pairs_to_halves(q, heads), pairs_to_halves(k, heads), v, o])


def _rename(key: str) -> str:
    if match := re.match(r"patch_embed\.proj\.(\d+)\.(.*)", key):
        return f"stem.{_STEM[match[1]]}.{match[2]}"
    if match := re.match(r"layers\.(\d+)\.downsample\.(.*)", key):
        key = f"layers.{int(match[1]) + 1}.downsample.{match[2]}"
    return _RENAMES(key)
