"""The one check of input sizes that networks without a fixed resolution need."""

from torch import Tensor

from mobilezoo.errors import InputSizeError


def check_input_size(x_bchw: Tensor, min_size: int) -> None:
    """Check that a network can take an image of this size.

    Args:
        x_bchw: images [B, C, H, W].
        min_size: least height and width in pixels that the network can take.

    Raises:
        InputSizeError: height or width is smaller.
    """
    height, width = x_bchw.shape[-2:]
    if height < min_size or width < min_size:
        raise InputSizeError(
            f"input of {height}×{width} pixels is too small for this network: use at least {min_size}×{min_size}"
        )


def whole_size(x_bchw: Tensor) -> tuple[int, int]:
    """Height and width as plain numbers, for what is built from them: where operations are counted they are tensors."""
    height, width = x_bchw.shape[-2:]
    return int(height), int(width)
