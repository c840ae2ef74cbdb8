"""What the units of a phone compute when the doctor compares them: given images, photographs, or noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.artifacts import Artifact
from mobilezoo.errors import DataError
from mobilezoo.workflows.check_exported import photographs_for
from mobilezoo.workflows.check_units import IMAGES

if TYPE_CHECKING:
    import numpy as np

PHOTOGRAPHS, NOISE = "crops of sample photographs", "seeded noise"


@dataclass(frozen=True)
class DoctorInputs:
    """The same values for every unit."""

    images: "np.ndarray | None"
    """(N, C, H, W) float32, preprocessed; None: noise for every input, as for files that take no image."""
    name: str
    count: int


def inputs_for(record: Artifact, folder: Path | None) -> DoctorInputs:
    """Choose what a file is run on.

    Args:
        record: the file's record, with a known size.
        folder: images, read and prepared as `predict` does; None: photographs that scikit-learn ships.

    Raises:
        DataError: the folder holds no image that can be read, or the file takes none.
    """
    takes_images = record.input.layout != "none"
    if folder is not None and not takes_images:
        raise DataError(f"--images {str(folder)!r}: the file takes no image (input {record.input.shape})")
    if folder is not None:
        images = _read(record, folder)
        return DoctorInputs(images, f"{len(images)} images of {str(folder)!r}", len(images))
    if not takes_images:
        return DoctorInputs(None, NOISE, 2)
    images = photographs_for(record)
    return DoctorInputs(images, f"{len(images)} {PHOTOGRAPHS}", len(images))


def _read(record: Artifact, folder: Path) -> "np.ndarray":
    """The first images of a folder that can be read, spread over it."""
    import numpy as np

    from mobilezoo.data.pixels import BAD_IMAGE, Pixels
    from mobilezoo.data.transforms import eval_transform
    from mobilezoo.workflows.predict import images_of

    paths = images_of([folder])
    fit = eval_transform(record.preprocessing, record.input.resolution)
    pixels = Pixels(channels=record.preprocessing.channels)
    found: list[np.ndarray] = []
    for path in (paths[i * len(paths) // IMAGES] for i in range(min(IMAGES, len(paths)))):
        try:
            found.append(np.asarray(fit(pixels.read(path))))
        except BAD_IMAGE as error:
            raise DataError(f"--images: {str(path)!r} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return np.stack(found)
