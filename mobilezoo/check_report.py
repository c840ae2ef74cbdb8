"""Records of `mobilezoo check`: how files differ from a baseline, and which difference is too much."""

from typing import Literal

from pydantic import Field

from mobilezoo.config import Record


class CheckLimits(Record):
    """Differences from the baseline that are accepted."""

    max_size: float = Field(default=1.02, gt=0, description="largest size over the baseline's")
    max_operators: float = Field(default=1.0, gt=0, description="largest number of operators over the baseline's")
    min_snr_db: float | None = Field(
        default=None,
        description="smallest ratio of the baseline's outputs to their difference, dB; "
        "default: 70 for fp32, 50 for fp16, 40 for all others",
    )
    max_drop: float = Field(default=0.5, ge=0, description="largest loss of top-1, in points")
    max_latency: float = Field(default=1.03, gt=0, description="largest latency over the baseline's, timed in turns")
    max_cycles: float = Field(default=1.01, gt=0, description="largest number of counted cycles over the baseline's")


class Compared(Record):
    """One measure of a file beside the baseline's."""

    name: str
    """size, operators, partitions, parity, top1, latency or cycles."""
    status: Literal["passed", "failed", "skipped"]
    text: str
    """Both values and the limit, or why nothing was compared; one line."""
    baseline: float | None = None
    value: float | None = None
    limit: float | None = None


class FileCheck(Record):
    """One file beside the baseline."""

    path: str
    compared: tuple[Compared, ...]

    @property
    def passed(self) -> bool:
        """Whether no measure is beyond its limit."""
        return all(one.status != "failed" for one in self.compared)


class CheckReport(Record):
    """All files beside one baseline."""

    schema_version: Literal[1] = 1
    baseline: str
    limits: CheckLimits
    files: tuple[FileCheck, ...]

    @property
    def passed(self) -> bool:
        """Whether no file has a measure beyond its limit."""
        return all(one.passed for one in self.files)
