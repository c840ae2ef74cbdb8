"""The images that files are compared, calibrated and scored on.

Named ones first, then the data that the network was trained with, then crops of two photographs that scikit-learn
ships. Where the training data is gone, a trained network is still compared, on the photographs, but not calibrated:
activation ranges of unlike images would cost accuracy without a warning.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilezoo.data.config import DataConfig, named_data
from mobilezoo.errors import DataError, MobilezooError
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.load_model import LoadedModel

if TYPE_CHECKING:
    import numpy as np

    from mobilezoo_export import ExportConfig, ModelSpec, ProofImages


@dataclass(frozen=True)
class ExportImages:
    """Float32 images [N, C, height, width], preprocessed."""

    parity: "np.ndarray"
    parity_name: str
    calibration: "np.ndarray"
    """Empty where there is nothing to calibrate on."""
    labelled: DataConfig | None
    """What top-1 can be measured on."""

    @property
    def proof(self) -> "ProofImages":
        """The images in the form that an export takes."""
        from mobilezoo_export import ProofImages

        return ProofImages(self.parity, self.parity_name, self.calibration)


def export_images(loaded: LoadedModel, spec: "ModelSpec", config: "ExportConfig", hooks: Hooks) -> ExportImages:
    """At most `config.parity_images` images for each purpose.

    Args:
        loaded: gives input, preprocessing and recorded data.
        spec: input of the photographs.
        config: `data` and `calib` name images.
        hooks: receives a message where the training data is gone.

    Raises:
        MobilezooError: named data cannot be read.
    """
    count = config.parity_images
    labelled = _named(loaded, config.data) if config.data else loaded.data
    found: tuple[np.ndarray, str] | None = None
    missing = False
    if labelled is not None:
        try:
            found = _validation(labelled, loaded, count)
        except MobilezooError as error:
            if config.data:
                raise
            missing, labelled = True, None
            hooks.on_message(f"{loaded.name}: {_no_data(error)}")
    calibration = _validation(_named(loaded, config.calib), loaded, count) if config.calib else None
    parity = found or calibration or _photographs(spec, count)
    if calibration is None:
        calibration = (parity[0][:0], "") if missing else parity
    return ExportImages(*parity, calibration[0], labelled)


def _no_data(error: MobilezooError) -> str:
    return f"its training data cannot be read ({error}): files are compared on photographs; --data names its new place"


def _photographs(spec: "ModelSpec", count: int) -> "tuple[np.ndarray, str]":
    from mobilezoo_export.images import SAMPLE_NAME, sample_images

    return sample_images(spec, count), f"{count} {SAMPLE_NAME}"


def _validation(data: DataConfig, loaded: LoadedModel, count: int) -> "tuple[np.ndarray, str]":
    from mobilezoo.data import sample_batch

    images = sample_batch(data, loaded.resolution, loaded.preprocessing, count)
    return images, f"{len(images)} images of {data.source} (split {data.val_split})"


def _named(loaded: LoadedModel, source: str) -> DataConfig:
    """Named data, split as the training data was; else by the usual name. Raises MobilezooError."""
    from mobilezoo.data import open_data

    as_trained = named_data(source, loaded.data)
    try:
        open_data(as_trained, train=False)
    except DataError:
        usual = DataConfig.model_fields["val_split"].default
        if as_trained.val_split == usual:
            raise
        as_trained = as_trained.model_copy(update={"val_split": usual})
        open_data(as_trained, train=False)
    return as_trained
