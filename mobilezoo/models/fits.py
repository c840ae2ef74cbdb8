"""Whether a network takes images of a size, found out by one image before anything long begins."""

import copy

import torch
from torch import nn

from mobilezoo.errors import ConfigError, MobilezooError, first_line
from mobilezoo.models.scale import check_activations
from mobilezoo.resolution import written

ONE_IMAGE = "{} cannot learn from a batch of one image, its batch norms need two: set data.batch_size to 2 or more"


def check_input(network: nn.Module, name: str, shape: tuple[int, int, int]) -> None:
    """Raise ConfigError where the network cannot take one image [C, H, W] of zeros."""
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
    """Raise ConfigError where the network cannot learn from a single image [C, H, W]: statistics need two values."""
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
    """Whether this is torch's complaint that a batch norm saw one value per channel."""
    return "more than 1 value per channel" in str(error)
