"""Exported files on the units of a phone, after their export: `mobilezoo eval FILE --check cpu,gpu,npu`."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.artifacts import Artifact, UnitCheck, has_record, save_record
from mobilezoo.errors import ExportError, UnknownNameError
from mobilezoo.workflows.check_units import IMAGES, UNITS, check_file
from mobilezoo.workflows.evaluate import weights_of
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.open_file import described

if TYPE_CHECKING:
    import numpy as np

HOST = "the host's runtime"
PYTORCH = "PyTorch"


def check_exported(
    path: Path, units: tuple[str, ...], options: ModelOptions = NO_OPTIONS, hooks: Hooks = SILENT
) -> Artifact:
    """Runs an exported file on units of a phone and writes what they answer into the record beside it.

    The answers are compared with the weights that the record names (or `options.checkpoint`). Where there are none, as
    for files of others, they are compared with the host's runtime instead, and each check's notes state so.

    Args:
        path: an exported file.
        units: keys of UNITS.
        options: weights, and what a file without a record leaves open.
        hooks: receives the unit under way.

    Returns:
        The file's record with the new checks; those of other units are kept.

    Raises:
        UnknownNameError: no such unit.
        MobilezooError: the file or the weights cannot be read, or the file takes no image of a known size.
    """
    for unit in units:
        if unit not in UNITS:
            raise UnknownNameError("unit", unit, UNITS)
    record = _described(path, options)
    if "resolution" in record.undeclared or record.input.layout == "none":
        raise ExportError(
            f"{path.name!r} declares no image of a fixed size: pass --resolution HEIGHTxWIDTH and --preprocess, or "
            "export it fixed"
        )
    images = photographs_for(record)
    reference, source = _reference(path, record, options, images)
    found: dict[str, UnitCheck] = {}
    for unit in units:
        hooks.on_status(f"{path.name} on {unit}")
        found[unit] = named_against(check_file(path, record, unit, images, reference), source)
    kept = tuple(one for one in record.checks if one.unit not in found)
    checked = record.model_copy(update={"checks": (*kept, *found.values())})
    if has_record(path):
        save_record(path, checked)
    return checked


def _described(path: Path, options: ModelOptions) -> Artifact:
    """The file's record; what a file of others leaves open of its preprocessing has no part in a comparison."""
    from mobilezoo_export import open_artifact

    record = open_artifact(path, len(options.labels))
    return record if record.foreign and options == NO_OPTIONS else described(path, options)


def photographs_for(record: Artifact) -> "np.ndarray":
    """A few crops of sample photographs, in a file's preprocessing.

    Args:
        record: of a file that takes images.
    """
    from mobilezoo_export.images import sample_images
    from mobilezoo_export.pixels import to_normalized, to_pixels
    from mobilezoo_export.records import ModelSpec

    prep = record.preprocessing
    spec = ModelSpec(model=record.model, resolution=record.input.resolution, preprocessing=prep, in_chans=prep.channels)
    images = sample_images(spec)[:IMAGES]
    pixels = record.input.dtype == "uint8" and record.input.quantization is None
    return to_normalized(to_pixels(images, prep), prep) if pixels else images


def _reference(path: Path, record: Artifact, options: ModelOptions, images: "np.ndarray") -> tuple["np.ndarray", str]:
    """Scores of the images, and what computed them."""
    from mobilezoo.workflows.load_model import load_model
    from mobilezoo_export import FileApart
    from mobilezoo_export.reference import torch_logits

    weights = weights_of(path, record, options)
    if weights is not None:
        softmax = record.output == "probabilities"
        return torch_logits(load_model(*weights).network, images, softmax=softmax), PYTORCH
    with FileApart(path, record) as opened:
        return opened.run(images), HOST


def named_against(check: UnitCheck, source: str) -> UnitCheck:
    """The check with the name of what it was compared with, where that is not PyTorch.

    Args:
        check: what a unit answered.
        source: PYTORCH or HOST.
    """
    if source == PYTORCH or check.parity is None:
        return check
    notes = (*check.notes, f"compared with {source}: there are no PyTorch weights to compare with")
    return check.model_copy(update={"reason": check.reason.replace(PYTORCH, source), "notes": notes})
