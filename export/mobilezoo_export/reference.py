"""The reference of every parity figure: the images that files are compared on, and PyTorch's scores of them."""

import numpy as np
import torch
from torch import nn

from mobilezoo.errors import ExportError
from mobilezoo_export.images import SAMPLE_NAME, sample_images
from mobilezoo_export.prepare import eval_copy
from mobilezoo_export.records import ExportSpec, ProofImages


def torch_logits(network: nn.Module, images: np.ndarray, batch: int = 16, softmax: bool = False) -> np.ndarray:
    """Run a network in PyTorch, in float32 on the CPU: the reference of every parity figure.

    Args:
        network: takes float32 NCHW images, returns logits (N, classes); not changed.
        images: preprocessed float32 NCHW images.
        batch: images per forward pass.
        softmax: return probabilities instead of logits.

    Returns:
        Float32 scores (images, classes).
    """
    model = eval_copy(network)
    with torch.no_grad():
        pieces = [model(torch.from_numpy(images[i : i + batch])).numpy() for i in range(0, len(images), batch)]
    logits = np.concatenate(pieces)
    return torch.from_numpy(logits).softmax(-1).numpy() if softmax else logits


def parity_images(spec: ExportSpec, images: ProofImages) -> tuple[np.ndarray, str]:
    """Return the parity images and their source; crops of sample photographs where none are given.

    Args:
        spec: input of the network.
        images: the caller's images.

    Returns:
        Float32 NCHW images, and their source for the record.

    Raises:
        ExportError: the caller's images are none, or of another shape than the input.
    """
    if images.parity is None:
        return sample_images(spec), SAMPLE_NAME
    if not len(images.parity):
        raise ExportError("no images to measure parity on: pass at least one, or leave them out for built-in ones")
    if images.parity.shape[1:] != spec.shape[1:]:
        raise ExportError(f"parity images have shape {images.parity.shape[1:]}, the model takes {spec.shape[1:]}")
    return np.asarray(images.parity, dtype=np.float32), images.parity_name


def check_answers(spec: ExportSpec, shape: tuple[int, ...]) -> None:
    """Checks that a network answers as its task has it.

    Args:
        spec: task, thresholds and names of the classes.
        shape: of the answer to one image.

    Raises:
        ExportError: the answer has another layout or number of classes, or thresholds of boxes are wanted or idle.
    """
    if spec.task == "classify":
        return
    wanted = {"detect": "[N, 4 + K] and boxes=BoxThresholds(...)", "segment": "[H, W, K] of the input's H and W"}[
        spec.task
    ]
    sides = 4 * (spec.task == "detect")
    fits = len(shape) == 2 if sides else shape[:-1] == tuple(spec.resolution)
    named = not spec.labels or len(spec.labels) == shape[-1] - sides
    if not fits or not named or (spec.boxes is None) is bool(sides):
        found = f"{list(shape)} with {len(spec.labels)} labels, boxes={spec.boxes}"
        raise ExportError(
            f"{spec.model}: task {spec.task} answers {wanted}, one label per class K; this network: {found}"
        )
