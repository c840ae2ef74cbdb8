"""Whether a network takes images of a size, found out by one image before anything long begins."""

import copy

import torch
from torch import nn

from mobilezoo.errors import ConfigError, MobilezooError, first_line
from mobilezoo.models.scale import check_activations
from mobilezoo.resolution import written

ONE_IMAGE = "{} cannot learn from a batch of one image, its batch norms need two: set data.batch_size to 2 or more"


def check_input(network: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Run a network on one image of zeros; its modes stay as they are.

    Args:
        network: network to check.
        name: the network's name, for the message.
        shape: [C, H, W] of the image.

    Raises:
        ConfigError: the network cannot take it, or a layer's output would not fit into memory.
    """
    check_activations(network, name, shape)
    modes = {module: module.training for module in network.modules()}
    tensor = next((t for t in network.parameters()), torch.empty(0))
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *shape, device=tensor.device, dtype=tensor.dtype))
    except MobilezooError as error:
        raise ConfigError(f"{name}: {error}") from None
    except (RuntimeError, ValueError, AssertionError, IndexError, ZeroDivisionError, TypeError) as error:
        raise ConfigError(
            f"{name} takes no images of {written(shape[1:])} pixels with {shape[0]} channels "
            f"({first_line(error, 200)}): choose another resolution"
        ) from None
    finally:
        for module, mode in modes.items():
            module.training = mode


def check_batch_of_one(network: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Train a copy of a network on one image of zeros: batch norms need two values per channel.

    Args:
        network: network to check; its running statistics stay as they are.
        name: the network's name, for the message.
        shape: [C, H, W] of the image.

    Raises:
        ConfigError: the network cannot learn from a single image.
    """
    tensor = next((t for t in network.parameters()), torch.empty(0))
    trial = copy.deepcopy(network).train()  # the running statistics of the network itself stay as they are
    try:
        with torch.no_grad():
            trial(torch.zeros(1, *shape, device=tensor.device, dtype=tensor.dtype))
    except ValueError as error:
        if not is_batch_of_one(error):
            raise
        raise ConfigError(ONE_IMAGE.format(name)) from None


def is_batch_of_one(error: ValueError) -> bool:
    """Whether this is PyTorch's error for a batch norm that got one value per channel."""
    return "more than 1 value per channel" in str(error)
