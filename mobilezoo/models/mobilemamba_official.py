"""Official MobileMamba state dicts → ours.

Mostly other names. Some official tensors hold several of ours: the scan's two directions, its input and gate, and the
four wavelet bands, which are interleaved channel by channel.
"""

import re
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mobilezoo.errors import CheckpointError
from mobilezoo.layers.wavelet import BANDS, haar_filters
from mobilezoo.models.renames import Renames

_RENAMES = Renames(
    (r"^patch_embed\.0\.", "stem.conv1."),
    (r"^patch_embed\.2\.", "stem.conv2."),
    (r"^patch_embed\.4\.", "stem.conv3."),
    (r"^patch_embed\.6\.", "stem.conv4."),
    (r"^head\.bn\.", "head.norm."),
    (r"^head\.l\.", "head.fc."),
    (r"\.(dw|ffn)([01])\.m\.", r".\1\2.body."),
    (r"\.mixer\.m\.attn\.", ".mixer.body."),
    (r"\.merge\.conv1\.", ".merge.pw1."),
    (r"\.merge\.conv2\.", ".merge.dw."),
    (r"\.merge\.conv3\.", ".merge.pw2."),
    (r"\.local_op\.dwconv3x3\.", ".parts.local.dw.conv."),
    (r"\.local_op\.bn1\.", ".parts.local.dw.norm."),
    (r"\.local_op\.dwconv1x1\.", ".parts.local.pw.conv."),
    (r"\.local_op\.bn2\.", ".parts.local.pw.norm."),
    (r"\.body\.proj\.1\.", ".body.proj."),
    (r"\.global_op\.base_scale\.weight$", ".parts.wide.scale"),
    (r"\.global_op\.global_atten\.", ".parts.wide.scan."),
    (r"\.global_op\.", ".parts.wide.wavelet."),
    (r"\.scan\.conv2d\.", ".scan.conv."),
    (r"\.scan\.out_norm\.", ".scan.norm."),
    (r"\.scan\.out_proj\.", ".scan.proj_out."),
    (r"\.c\.weight$", ".conv.weight"),
    (r"\.bn\.", ".norm."),
)
_DOWNSAMPLE = ("dw0.m", "ffn0.m", "merge", "dw1.m", "ffn1.m")
"""Names of what official stages hold before their blocks: 0.0, 0.1, 1, 2.0, 2.1."""


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename and cut an official (`MobileMamba_*`) state dict; any other is returned unchanged.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.

    Raises:
        CheckpointError: the wavelet filters are not those of Haar.
    """
    if not any(key.startswith("patch_embed.") for key in state_dict):
        return dict(state_dict)
    renamed: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        new = _rename(key)
        for suffix, cut in _CUTS.items():
            if suffix in new:
                head, _, tail = new.partition(suffix)
                renamed.update({f"{head}.{name.format(tail)}": part for name, part in cut(value).items()})
                break
        else:
            renamed[new] = value[0] if new.endswith(".wide.scale") else value
    return renamed


def _rename(key: str) -> str:
    """Our key, parts of a tensor not yet apart."""
    if match := re.match(r"blocks1\.(\d+)\.(.*)", key):
        key = f"stages.0.blocks.{match[1]}.{match[2]}"
    elif match := re.match(r"blocks(\d)\.([02])\.([01])\.m\.(.*)", key):
        name = _DOWNSAMPLE[3 * (match[2] == "2") + int(match[3])]
        key = f"stages.{int(match[1]) - 1}.downsample.{name}.{match[4]}"
    elif match := re.match(r"blocks(\d)\.1\.(.*)", key):
        key = f"stages.{int(match[1]) - 1}.downsample.merge.{match[2]}"
    elif match := re.match(r"blocks(\d)\.(\d+)\.(.*)", key):
        key = f"stages.{int(match[1]) - 1}.blocks.{int(match[2]) - 3}.{match[3]}"
    return _RENAMES(key)


def _bands(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    """Official tensors interleave the bands channel by channel."""
    return lambda value: {f"bands.{i}.{name}": value[i::BANDS] for i in range(BANDS)}


def _filters(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    def cut(value: Tensor) -> dict[str, Tensor]:
        expected = haar_filters()[:, None].repeat(value.shape[0] // BANDS, 1, 1, 1)
        if value.shape != expected.shape or not torch.allclose(value.float().cpu(), expected, atol=1e-3):
            raise CheckpointError(f"wavelet filters of shape {tuple(value.shape)} are not Haar's")
        return _bands(name)(value)

    return cut


def _directions(name: str) -> Callable[[Tensor], dict[str, Tensor]]:
    return lambda value: {f"proj_delta.{i}.{name}": value[i] for i in range(2)}


def _scan_projection(value: Tensor) -> dict[str, Tensor]:
    """[direction, (Δ, B, C), inner] → rows in the order Δ ahead, Δ back, B ahead, B back, C ahead, C back."""
    rank = value.shape[1] - 2
    return {"proj_scan.weight": torch.cat([value[i, rows] for rows in _rows(rank) for i in range(2)])}


def _rows(rank: int) -> tuple[slice, slice, slice]:
    return slice(0, rank), slice(rank, rank + 1), slice(rank + 1, rank + 2)


def _halves(value: Tensor) -> dict[str, Tensor]:
    """Input and gate; a counter serves both."""
    first, second = value.chunk(2) if value.ndim else (value, value)
    return {"proj_in.{}": first, "proj_gate.{}": second}


_CUTS: dict[str, Callable[[Tensor], dict[str, Tensor]]] = {
    ".wt_filter": _filters("analysis.weight"),
    ".iwt_filter": _filters("synthesis"),
    ".wavelet_convs.0.weight": _bands("conv.weight"),
    ".wavelet_scale.0.weight": lambda value: _bands("scale")(value.reshape(-1, 1, 1, 1)),
    ".x_proj_weight": _scan_projection,
    ".dt_projs_weight": _directions("weight"),
    ".dt_projs_bias": _directions("bias"),
    ".A_logs": lambda value: {"a_log": value.reshape(2, -1)},
    ".Ds": lambda value: {"skip": value.reshape(2, -1)},
    ".in_proj.": _halves,
}
"""Official tensors that are several of ours: how each is cut."""
