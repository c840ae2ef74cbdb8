"""An emulated core as data: one YAML of `configs/devices/` each."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.latency_report import HeldOut
from mobilezoo_latency.contract import SENTENCE, DeviceConfig

CPU = r"^[a-z0-9][a-z0-9_.,=-]{0,99}$"
"""A core's name, in QEMU with switches behind it; also part of file names."""
Size = Annotated[int, Field(ge=1, le=1_000_000)]
FITTED = "fp32"
"""Precision of the files that calibrations are fitted to."""
PrecisionName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,29}$")]
CalibrationName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]{0,59}$")]


class HeldOutOnBoard(HeldOut):
    """As a device YAML has it: its text is one line."""

    basis: str = Field(pattern=SENTENCE, description="board, runtime, networks and source of the real latencies")


class Calibration(Record):
    """Conversion of this core's cycles to milliseconds of one real board and runtime, with its error."""

    runtime: str = Field(default="", pattern=SENTENCE, description="runtime of the real latencies, with its version")
    ms_per_megacycle: float = Field(gt=0, description="measured milliseconds over estimated 10^6 cycles")
    dram_cycles: float = Field(default=0.0, ge=0, description="cycles added per cache line fetched from memory")
    error_percent: float = Field(ge=0, description="mean absolute percentage error, each network left out once")
    low_ratio: float = Field(gt=0, description="10th percentile of real over estimated latency")
    high_ratio: float = Field(gt=0, description="90th percentile of real over estimated latency")
    basis: str = Field(
        pattern=SENTENCE,
        description="board, runtime, networks and source of the real latencies; stands beside every estimate",
    )
    held_out: dict[PrecisionName, HeldOutOnBoard] = Field(
        default={}, description="precision to error, for files of other precisions than fp32, which the fit rests on"
    )
    llvm: str = Field(pattern=r"^[0-9][0-9A-Za-z.+~-]{0,40}$", description="LLVM version the cycles came from")

    def error_on(self, precision: str) -> tuple[str, HeldOut]:
        """Returns the precision that an error is known for, and the error: the file's own precision, or fp32.

        Args:
            precision: of the file.
        """
        if precision in self.held_out:
            return precision, self.held_out[precision]
        return FITTED, HeldOut(**{name: getattr(self, name) for name in HeldOut.model_fields})


class EmulatedConfig(DeviceConfig):
    """A core: what QEMU emulates, what the runtime finds in /proc/cpuinfo, and what prices its instructions."""

    type: Literal["emulated"] = "emulated"
    qemu_cpu: str = Field(pattern=CPU, description="QEMU's -cpu; sets the instructions that exist")
    cpu_part: str = Field(pattern=r"^0x[0-9a-f]{3}$", description="part number; the runtime picks its kernels by it")
    cpu_features: str = Field(pattern=r"^[a-z0-9_ ]{0,2000}$", description="feature line of /proc/cpuinfo")
    mca_cpu: str = Field(pattern=CPU, description="llvm-mca's -mcpu")
    mca_features: str = Field(pattern=r"^[a-z0-9.,+-]{0,2000}$", description="-mattr of both LLVM tools")
    caches: tuple[tuple[Size, Size], ...] = Field(
        max_length=3, description="(KiB, ways) of each data cache level, first level first"
    )
    calibrations: dict[CalibrationName, Calibration] = Field(
        default={}, description="name to conversion: of one board and runtime each, all of LiteRT (TFLite) files"
    )
    calibration: CalibrationName | Calibration | None = Field(
        default=None,
        description="what estimates rest on: a name in `calibrations`, or a conversion; null: counts without estimates",
    )

    @model_validator(mode="after")
    def _calibration_exists(self) -> Self:
        if isinstance(self.calibration, str) and self.calibration not in self.calibrations:
            known = ", ".join(self.calibrations) or "empty"
            raise ValueError(f"calibration {self.calibration!r} is not in `calibrations`, which is {known}")
        return self

    @property
    def conversion(self) -> Calibration | None:
        """The calibration that estimates rest on; None without one."""
        return self.calibrations[self.calibration] if isinstance(self.calibration, str) else self.calibration
