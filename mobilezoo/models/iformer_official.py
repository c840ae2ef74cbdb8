"""Official iFormer state dicts → ours: other names, three official blocks in one of ours, and perhaps a second head."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mobilezoo.layers.head import NormHead

_RENAMES = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        (r"^downsample_layers\.0\.0\.", "stem.conv1."),
        (r"^downsample_layers\.0\.2\.conv_exp_bn1\.", "stem.conv2."),
        (r"^downsample_layers\.0\.2\.conv_pwl_bn2\.", "stem.conv3."),
        (r"^downsample_layers\.(\d+)\.0\.", r"stages.\1.downsample."),
        (r"\.block\.token_channel_mixer\.m\.0\.", ".dw."),
        (r"\.block\.token_channel_mixer\.m\.1\.", ".mlp.fc1."),
        (r"\.block\.token_channel_mixer\.m\.3\.", ".mlp.fc2."),
        (r"\.block\.token_channel_mixer\.m\.(q|k|v_gate|proj)\.", r".attn.\1."),
        (r"\.block\.cpe\.m\.", ".cpe.conv."),
        (r"\.block\.channel_mixer\.m\.0\.", ".mlp.fc1."),
        (r"\.block\.channel_mixer\.m\.2\.", ".mlp.fc2."),
        (r"\.c\.(?=weight|bias)", ".conv."),
        (r"\.bn\.", ".norm."),
        (r"^classifier\.classifier\.norm\.", "head.norm."),
        (r"^classifier\.classifier\.l\.", "head.fc."),
        (r"^classifier\.classifier_dist\.norm\.", "head.norm_dist."),
        (r"^classifier\.classifier_dist\.l\.", "head.fc_dist."),
    )
)
_TWO_HEADS = tuple(
    f"head.{name}{which}.{part}"
    for which in ("", "_dist")
    for name, parts in (("norm", ("weight", "bias", "running_mean", "running_var")), ("fc", ("weight", "bias")))
    for part in parts
)
"""Our keys of a file with two heads."""
_BLOCK = re.compile(r"^stages\.(\d+)\.(\d+)\.block\.(cpe|channel_mixer|token_channel_mixer\.m\.(?:0|q))\.")


def from_official(state_dict: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename an official (`iFormer_*`) state dict; any other is returned unchanged.

    A two-head file for a one-head network gets its heads averaged, which is what official inference computes.

    Args:
        state_dict: tensors by official names, or by the network's own.
        model: network that the weights are for.
    """
    if not any(key.startswith("downsample_layers.0.") for key in state_dict):
        return dict(state_dict)
    found = [match for key in state_dict if (match := _BLOCK.match(key))]
    begins = {(int(m[1]), int(m[2])) for m in found if m[3] in ("cpe", "token_channel_mixer.m.0")}
    renamed = {_rename(key, begins): value for key, value in state_dict.items()}
    head = getattr(model, "head", None)
    if isinstance(head, NormHead) and head.fc_dist is None and set(_TWO_HEADS) <= set(renamed):
        _average_heads(renamed, head.norm)
    return renamed


def _rename(key: str, begins: set[tuple[int, int]]) -> str:
    """Our key; `begins` are the official (stage, block) at which one of our blocks begins."""
    if match := re.match(r"stages\.(\d+)\.(\d+)\.(?=block\.)", key):
        stage, index = int(match[1]), int(match[2])
        ours = sum((stage, j) in begins for j in range(index + 1)) - 1
        key = f"stages.{stage}.blocks.{ours}.{key[match.end() :]}"
    for pattern, new in _RENAMES:
        key = pattern.sub(new, key)
    return key


def _average_heads(state: dict[str, Tensor], norm: nn.Module) -> None:
    """Put the mean of both heads into the first, behind `norm` without an affine part."""
    assert isinstance(norm, nn.BatchNorm2d)
    own, other = (
        {part: state[f"head.norm{which}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")}
        for which in ("", "_dist")
    )
    first, second = ((part["running_var"] + norm.eps).sqrt() for part in (own, other))
    shift = other["weight"] * (own["running_mean"] - other["running_mean"]) / second + other["bias"]
    weights = [state[f"head.{name}.weight"].double() for name in ("fc", "fc_dist")]
    biases = [state[f"head.{name}.bias"].double() for name in ("fc", "fc_dist")]
    weight = (weights[0] * own["weight"] + weights[1] * (other["weight"] * first / second)) / 2
    bias = (biases[0] + weights[0] @ own["bias"] + biases[1] + weights[1] @ shift) / 2
    dtype = state["head.fc.weight"].dtype
    state.update({"head.fc.weight": weight.to(dtype), "head.fc.bias": bias.to(dtype)})
    state["head.norm.weight"] = torch.ones_like(state["head.norm.weight"])
    state["head.norm.bias"] = torch.zeros_like(state["head.norm.bias"])
    for key in [key for key in state if key.startswith(("head.norm_dist.", "head.fc_dist."))]:
        del state[key]
