"""Why a loss is not finite: the first layer whose output is not, found by one more forward pass with hooks."""

from typing import Any

import torch
from torch import nn


def nan_message(network: nn.Module, x: torch.Tensor, epoch: int, step: int, lr: float) -> str:
    """One line for a loss that is not finite: the step, the first layer with such an output, what to try.

    Args:
        network: run once more with hooks on its innermost layers.
        x: (B, C, H, W) batch that led to the loss.
        epoch: finished epochs, from 0.
        step: updates done in this epoch, from 0.
        lr: learning rate of the step.
    """
    found: list[str] = []

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor) and not torch.isfinite(output).all():
                found.append(name)

        return hook

    hooks = [m.register_forward_hook(watch(n)) for n, m in network.named_modules() if not list(m.children())]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    if not torch.isfinite(x).all():
        where = "already in the images"
    else:
        where = f"first in layer {found[0]!r}" if found else "in the loss only"
    return (
        f"loss is not finite at epoch {epoch + 1}, step {step + 1} ({where}, lr {lr:.2g}): "
        "lower train.optimizer.lr, set train.optimizer.clip=1.0, or lengthen the warm-up"
    )
