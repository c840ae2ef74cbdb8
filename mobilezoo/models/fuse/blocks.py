"""Bring blocks with a deployment form into it: `fuse()` returns it, other methods take it on in place."""

import copy
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mobilezoo.models.fuse.trace import has_hooks

_METHODS = ("fuse", "reparameterize", "switch_to_deploy")
_DONE = "_mobilezoo_deployed"
_FAULTS = (AssertionError, AttributeError, IndexError, NotImplementedError, RuntimeError, TypeError, ValueError)


def deploy_blocks(parent: nn.Module, known: dict[nn.Module, nn.Module] | None = None) -> None:
    """Replace every block below `parent` by its deployment form where it has one, outermost first.

    Args:
        parent: root of the tree, changed in place.
        known: blocks met so far → their deployment forms, so that shared blocks stay shared.
    """
    known = {} if known is None else known
    for name, child in list(parent._modules.items()):
        if child is None:
            continue
        if child not in known:
            known[child] = _deployed(child)
            deploy_blocks(known[child], known)
        parent._modules[name] = known[child]


def _deployed(block: nn.Module) -> nn.Module:
    """A block's own deployment form, computed in float64; the block itself if it has none."""
    method = next((m for m in _METHODS if inspect.isfunction(getattr(type(block), m, None))), None)
    done = getattr(block, _DONE, False) or getattr(block, "reparam_conv", None) is not None
    tensors = [t for t in (*block.parameters(), *block.buffers()) if t.is_floating_point()]
    if method is None or done or has_hooks(block) or not tensors:
        return block
    dtype = next(block.parameters(), tensors[0]).dtype
    work = copy.deepcopy(block).double()
    try:
        with torch.no_grad(), _new_tensors_on(tensors[0].device, torch.float64):
            result = getattr(work, method)()
    except (
        AssertionError,
        AttributeError,
        IndexError,
        NotImplementedError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as why:
        warnings.warn(f"{type(block).__name__}.{method}() failed, left as it is: {why!r}", stacklevel=2)
        return block
    result = (result if isinstance(result, nn.Module) else work).to(dtype).eval()
    result.requires_grad_(any(p.requires_grad for p in block.parameters()))
    setattr(result, _DONE, True)
    return result


@contextmanager
def _new_tensors_on(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Layers built inside get this device and dtype, whatever their builder forgot to pass on."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
