"""Networks and inputs that no machine holds are refused before memory or time is spent on them."""

import contextlib
import copy
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode

from mobilezoo.errors import ConfigError
from mobilezoo.memory import physical_bytes
from mobilezoo.resolution import written

SHARE = 4
"""Weights, or one layer's output, may take the machine's memory divided by this: more of them live at once."""
LARGE = 1 << 20
"""Pixels of an input from which its layers' outputs are worth a look before they are computed."""


@contextlib.contextmanager
def within_memory(name: str) -> Iterator[None]:
    """Raise ConfigError as soon as the modules built inside have more weights than this machine's memory allows.

    Each weight is counted when its module takes it: allocated by then, but not yet filled.
    """
    limit, taken = physical_bytes() // SHARE, 0

    def count(_module: nn.Module, _name: str, weight: nn.Parameter | None) -> None:
        nonlocal taken
        taken += weight.numel() * weight.element_size() if weight is not None else 0
        if taken > limit:
            raise ConfigError(_too_large(name, "weights", taken))

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_allocation(error):
            raise
        raise ConfigError(_too_large(name, "weights", None)) from None
    finally:
        hook.remove()


class _LargestOutput(TorchDispatchMode):
    """The most bytes that one operation gives."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, math.prod(tensor.shape) * tensor.element_size())
        return result


def check_activations(network: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Check that no layer's output of one image is too large for this machine's memory.

    Found out without data, for large inputs only. What cannot run without data is left to the run itself.

    Args:
        network: network to check.
        name: the network's name, for the message.
        shape: [C, H, W] of the image.

    Raises:
        ConfigError: an output takes more than a quarter of the memory.
    """
    if shape[1] * shape[2] < LARGE:
        return
    outputs = _LargestOutput()
    with contextlib.suppress(Exception), torch.no_grad():
        bare = copy.deepcopy(network).to("meta").eval()
        with outputs:
            bare(torch.zeros(1, *shape, device="meta"))
    if outputs.largest > physical_bytes() // SHARE:
        raise ConfigError(_too_large(f"{name} at {written(shape[1:])} pixels", "one layer's output", outputs.largest))


def _too_large(name: str, what: str, size: int | None) -> str:
    takes = f"{size / 1e9:,.0f} GB or more" if size is not None else "more than can be allocated"
    return (
        f"{name}: {what} would take {takes}, this machine has {physical_bytes() / 1e9:,.0f} GB of memory: "
        "choose smaller numbers"
    )


def is_allocation(error: BaseException) -> bool:
    text = str(error)
    told = ("allocate memory", "Storage size calculation overflowed", "out of memory")
    return isinstance(error, MemoryError) or any(words in text for words in told)
