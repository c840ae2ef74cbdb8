"""Configuration of `mobilezoo export`: which files to make of a network, and how they are compared with it."""

from typing import Literal

from pydantic import Field, field_validator

from mobilezoo.config import Words, listed
from mobilezoo_export.records import ExportOptions, ExportSpec, ModelSpec
from mobilezoo_export.registry import TARGETS

PARITY_IMAGES = 64
SCORED_IMAGES = 512


class ExportConfig(ExportOptions):
    """One YAML in configs/export/."""

    targets: tuple[str, ...] = Field(
        default=("onnx", "litert", "coreml"),
        min_length=1,
        description="formats: onnx, litert, coreml, executorch, qnn, ncnn, coreai, ...",
    )
    precisions: tuple[str, ...] = Field(default=("fp32",), min_length=1, description="fp32, fp16, int8, ...")
    batch: int = Field(default=1, gt=0, description="fixed batch size of the files")
    data: str | None = Field(
        default=None, description="images that files are compared and scored on; null: the network's training data"
    )
    calib: str | None = Field(default=None, description="images that int8 is calibrated on; null: those of data")
    classes: str | None = Field(default=None, description="the data's class of each output, see docs/data.md")
    max_drop: float | None = Field(
        default=None, ge=0, description="int8 keeps so much in float that top-1 falls by at most this"
    )
    optimize_for: str | None = Field(
        default=None, description="emulated core: of the equivalent forms of a file, the one with the fewest cycles"
    )
    overwrite: bool = Field(default=False, description="replace files that exist")
    check: tuple[Literal["cpu", "gpu", "npu"], ...] = Field(
        default=(), description="units of a phone that files are also run on: cpu (an emulated core), gpu, npu"
    )
    parity_images: int = Field(default=PARITY_IMAGES, gt=0, description="images that files are compared on")
    scored_images: int = Field(
        default=SCORED_IMAGES, ge=0, description="further images of data, at most, for the top-1 of reduced precisions"
    )

    @field_validator("targets", "precisions", "check", mode="before", json_schema_input_type=Words)
    @classmethod
    def _listed_names(cls, value: object) -> object:
        return listed(value)

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(TARGETS.known(name) for name in value)

    def spec(self, model: ModelSpec, precision: str) -> ExportSpec:
        """Combine a network with this config's batch size and options.

        Args:
            model: the network's name, input and labels.
            precision: precision of the file.
        """
        of_model = {name: getattr(model, name) for name in ModelSpec.model_fields}
        return ExportSpec(**of_model, batch=self.batch, precision=precision, options=self.options)

    @property
    def options(self) -> ExportOptions:
        """The part that changes a file but not what it computes."""
        return ExportOptions(**{name: getattr(self, name) for name in ExportOptions.model_fields})
