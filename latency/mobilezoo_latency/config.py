"""Configuration of `mobilezoo profile`: device, protocol, and the format that named models are exported to."""

from pydantic import Field, field_validator

from mobilezoo.config import Record, Words, listed


class ProfileConfig(Record):
    """One YAML in configs/profile/."""

    device: str = Field(default="host", description="a name of `mobilezoo device list`, or the path of a device YAML")
    device_overrides: tuple[str, ...] = Field(
        default=(), description="keys of the device's YAML: serial=R58M (on the command line: device.serial=R58M)"
    )
    targets: tuple[str, ...] = Field(
        default=("litert",), min_length=1, description="formats that names and checkpoints are exported to"
    )
    precisions: tuple[str, ...] = Field(
        default=("fp32",), min_length=1, description="precisions of those files: fp32, fp16, int8, ..."
    )
    tier: str = Field(default="screen", description="protocol: screen, report or sustained")
    threads: int | None = Field(default=None, gt=0, description="threads of the runtime; null: one")
    use_cache: bool = Field(default=True, description="take a kept result that fits")
    allow_folded: bool = Field(default=False, description="time a file whose zero norms let branches vanish")

    @field_validator("targets", "precisions", mode="before", json_schema_input_type=Words)
    @classmethod
    def _listed(cls, value: object) -> object:
        return listed(value)
