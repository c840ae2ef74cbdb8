"""Records of a recommendation: what was wanted, the front, and what was left out."""

from mobilezoo.config import Record
from mobilezoo.latency_report import Kind
from mobilezoo.notebook import rows_html

TASKS = ("classify", "dense")


class Wanted(Record):
    """Device and limits of a recommendation."""

    device: str = "cortex_a76"
    precision: str = "fp32"
    """fp32, fp16, int8, or any."""
    max_ms: float | None = None
    max_mb: float | None = None
    """Of the file, in 10^6 bytes."""
    license: str = "any"
    """any, permissive, or words of a license's name."""
    task: str = "classify"
    """One of TASKS; dense: networks that give feature maps of several sizes."""
    peers: bool = True
    """Whether timm's networks are considered."""


class Pick(Record):
    """A network of the front."""

    model: str
    precision: str
    latency_ms: float
    low_ms: float
    high_ms: float
    latency_error: str
    """How far off the latency may be; of measured ones, what made them noisy."""
    top1: float
    """Published, of float weights: another precision may cost some."""
    distilled: bool
    params: int
    macs: int
    size_bytes: int | None
    resolution: int | str
    license: str
    source: str
    command: str
    """Takes it on: the published weights in a file for a phone, or the training where none are published."""


class LeftOut(Record):
    """Networks that are not on the front, by the first reason that applies."""

    reason: str
    models: tuple[str, ...]


class Recommendation(Record):
    """The front, fastest first."""

    wanted: Wanted
    kind: Kind
    """`emulated`: estimated from counted instructions, never timed."""
    basis: str
    """What the latencies rest on."""
    front: tuple[Pick, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def best(self) -> Pick:
        """The most accurate one within the limits."""
        return self.front[-1]

    def _repr_html_(self) -> str:
        """A table of the front, for notebooks."""
        return rows_html(self.front)
