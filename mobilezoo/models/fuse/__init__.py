"""Deployment form of a network: fewer layers, the same function.

What is folded: training-time branches and depthwise residuals into one convolution, BatchNorms and LayerScales into
the convolution or linear layer beside them, layers that do nothing in eval mode. What is not: a layer that runs more
than once or shares weights, a BatchNorm whose neighbours are no linear layers (or whose input is itself a result of
the network, as GhostNet's stem with `features_only`), and a shift in front of a zero-padded convolution.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mobilezoo.errors import MobilezooError, first_line
from mobilezoo.models.fuse.affine import replace
from mobilezoo.models.fuse.blocks import deploy_blocks
from mobilezoo.models.fuse.collapse import collapse_blocks
from mobilezoo.models.fuse.scales import fold_norms, fold_scales
from mobilezoo.models.fuse.trace import NOOPS, observe

__all__ = ["example_input", "fuse", "relative_difference"]

TOLERANCE = 1e-4
"""Largest accepted difference between the network and its fused form, in standard deviations of the output."""


@torch.no_grad()
def fuse(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """A copy of `model` in eval mode with everything folded that can be; `model` itself stays as it is.

    The network is run a few times to see which layer feeds which, and once more to prove the result equal.

    Args:
        model: network to fold.
        example: images [B, C, H, W]; None for one random image of the size in the network's `pretrained_cfg`.

    Raises:
        MobilezooError: there is no example, the network cannot run on it, or the results differ.
    """
    network = copy.deepcopy(model).eval()
    example = example_input(network) if example is None else example
    before = _run(network, example)
    deploy_blocks(network)
    while _fold_once(network, example):
        pass
    for module in {m for m in observe(network, example).calls if type(m) in NOOPS and m is not network}:
        if not isinstance(module, nn.Identity):
            replace(network, module, nn.Identity())
    _check_equal(model, network, example, before)
    return network


def example_input(model: nn.Module) -> Tensor:
    """One random image [1, C, H, W] that fits the network, on its device and in its dtype. Raises MobilezooError."""
    config = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None) or {}
    size = config.get("input_size")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), None)
    if size is None or parameter is None:
        raise MobilezooError(f"{type(model).__name__} does not say its input size: pass example=TENSOR")
    generator = torch.Generator().manual_seed(0)
    candidates = [
        torch.randn(1, c, *size[1:], generator=generator).to(parameter) for c in _input_channels(model, config)
    ]
    return next((x for x in candidates[:-1] if _runs(model, x)), candidates[-1])


def _input_channels(model: nn.Module, config: Any) -> list[int]:
    """How many channels the network may take, likeliest first: `in_chans` is not always the config's number."""
    stem = dict(model.named_modules()).get(str(config.get("first_conv")))
    stem = stem or next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    said = (getattr(model, "in_chans", None), getattr(stem, "in_channels", None), config["input_size"][0])
    return list(dict.fromkeys(int(c) for c in said if isinstance(c, int)))


def _runs(model: nn.Module, example: Tensor) -> bool:
    training = {m for m in model.modules() if m.training}
    try:
        with torch.no_grad():
            model.eval()(example)
    except RuntimeError:
        return False
    finally:
        for module in training:
            module.training = True
    return True


def relative_difference(output: Any, reference: Any) -> float:
    """Largest absolute difference over the reference's standard deviation, worst of all tensors.

    Args:
        output: tensor, or nested lists and dicts of tensors.
        reference: the same structure.

    Returns:
        The difference; infinity where shapes differ or a value is not finite.
    """
    worst = 0.0
    pairs = zip(tree_leaves(output), tree_leaves(reference), strict=True)
    for a, b in ((a.double(), b.double()) for a, b in pairs if isinstance(b, Tensor)):
        if a.shape != b.shape or not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
            return float("inf")
        spread = b.std(correction=0) if b.numel() > 1 else b.abs().sum()
        difference = float((a - b).abs().max()) if b.numel() else 0.0
        worst = max(worst, difference / max(float(spread), 1e-12) if difference else 0.0)
    return worst


def _fold_once(network: nn.Module, example: Tensor) -> bool:
    """One look at the network and all that can be folded on its grounds; False when nothing was left."""
    trace = observe(network, example)
    if fold_norms(network, trace) + fold_scales(network, trace):
        return True
    return collapse_blocks(network, trace) > 0


def _check_equal(model: nn.Module, network: nn.Module, example: Tensor, before: Any) -> None:
    """Raise MobilezooError unless both compute the same; where rounding is in doubt, float64 decides.

    A network that amplifies rounding is allowed a multiple of its own error: folded weights are rounded as well.
    """
    if relative_difference(_run(network, example), before) <= TOLERANCE:
        return
    try:
        exact, fused = (_run(copy.deepcopy(m).eval().double(), example.double()) for m in (model, network))
    except MobilezooError:  # a network that fixes its dtype somewhere has to be equal as it is
        exact, fused = before, _run(network, example)
    difference, own_error = relative_difference(fused, exact), relative_difference(before, exact)
    if difference > max(TOLERANCE, 3 * own_error):
        raise MobilezooError(
            f"fusing {type(model).__name__} changed its output by {difference:.2g} standard deviations, "
            f"more than {TOLERANCE}: please report this network"
        )


def _run(network: nn.Module, example: Tensor) -> Any:
    try:
        return network(example)
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError) as error:
        shape = "x".join(str(n) for n in example.shape)
        raise MobilezooError(
            f"{type(network).__name__} does not run on an input of {shape}: {first_line(error)}; pass example=TENSOR"
        ) from error
