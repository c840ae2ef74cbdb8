"""Latencies of the zoo on emulated phone cores, counted once and kept as data: `latency.json` beside this file.

`benchmarks/zoo_latency.py` writes it. No row is a measured time: cycles come from a static model of the core, and
milliseconds from a calibration whose error stands beside them (docs/latency.md).
"""

import json
from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mobilezoo.config import Record
from mobilezoo.files import write_text
from mobilezoo.latency_report import HeldOut, error_in_words
from mobilezoo.reading import read_json
from mobilezoo.resolution import Resolution

TABLE = Path(__file__).with_name("latency.json")
CALIBRATED = "fp32"
"""Precision of the files that the calibrations, and so their errors, rest on."""


REVISION = 2
"""Of the LiteRT files that are counted; raised when `export` writes them otherwise, so that rows are counted again. 2:
depthwise windows of more than 25 taps as sums of smaller ones, other padding in half precision."""


class Peer(Record):
    """A network of timm that the zoo is compared with."""

    name: str
    """`timm:NAME.TAG`."""
    resolution: Resolution
    params: int
    macs: int
    top1: float
    """ImageNet-1k top-1 in percent at `resolution`, as timm reports it."""
    license: str
    """Of the weights."""
    source: str


class CoreFacts(Record):
    """An emulated core, and what its estimates rest on."""

    description: str
    cpu: str
    runtime: str
    error_percent: NonNegativeFloat
    """Mean absolute error on networks left out of the calibration, all of CALIBRATED precision."""
    low_ratio: PositiveFloat
    """10th percentile of real over estimated latency."""
    high_ratio: PositiveFloat
    """90th percentile."""
    basis: str
    """Board, runtime, networks and source of the real latencies."""
    held_out: dict[str, HeldOut] = {}
    """Precision → error, for files of other precisions."""

    def error_on(self, precision: str) -> HeldOut | None:
        """Returns the error of estimates for files of a precision; None where it is not known."""
        if precision == CALIBRATED:
            return HeldOut(**{name: getattr(self, name) for name in HeldOut.model_fields})
        return self.held_out.get(precision)


class LatencyRow(Record):
    """One file of one network on one core, or the reason why there is no number."""

    model: str
    device: str
    precision: str
    latency_ms: PositiveFloat | None = None
    """Estimated from cycles; nothing was timed."""
    cycles: PositiveFloat | None = None
    instructions: int | None = None
    dram_lines: NonNegativeInt | None = None
    """Cache lines from memory; None where the core's calibration has no use for them."""
    size_bytes: int | None = None
    partitions: int | None = None
    """Parts of the graph that XNNPACK runs."""
    reason: str = ""
    """Why there is no number."""
    revision: PositiveInt = 1
    """Of the way in which files are written, see REVISION; a row of an older one is of a file that `export` no longer
    writes so."""
    note: str = ""
    """What sets this file apart: fp16 files whose values half precision cannot hold compute in float32."""


class LatencyTable(Record):
    """The whole table; networks without a row are not counted yet."""

    schema_version: Literal[1] = 1
    protocol: str
    tools: dict[str, str]
    cores: dict[str, CoreFacts]
    cpu_hours: NonNegativeFloat = Field(description="CPU time of all exports and counts")
    peers: tuple[Peer, ...]
    strides: dict[str, tuple[int, ...]] = {}
    """Counted network → input pixels per pixel of each of its feature maps; empty where it gives none."""
    rows: tuple[LatencyRow, ...]

    @property
    def precisions(self) -> tuple[str, ...]:
        """Precisions that occur, in order of appearance."""
        return tuple(dict.fromkeys(row.precision for row in self.rows))

    @property
    def outdated(self) -> int:
        """Number of counted rows of an older revision."""
        return sum(row.revision < REVISION for row in self.rows if row.latency_ms is not None)

    def error_of(self, device: str, precision: str) -> str:
        """Describes how far off the estimates of a core are, in words.

        Args:
            device: a key of `cores`.
            precision: precision of the files.
        """
        core = self.cores[device]
        known = core.error_on(precision)
        if known is None:
            return error_in_words(core.error_percent, CALIBRATED, precision)
        return error_in_words(known.error_percent, precision, precision)

    def save(self, path: Path) -> Path:
        """Writes the table, a row per line, and returns its path.

        Args:
            path: the JSON file.
        """
        plain = self.model_dump(mode="json", exclude_none=True)
        lists = {key: plain.pop(key) for key in ("peers", "rows")}
        parts = [json.dumps(plain, indent=1, ensure_ascii=False).removesuffix("\n}")]
        for key, rows in lists.items():
            body = ",\n".join("  " + json.dumps(_without_empty(row), ensure_ascii=False) for row in rows)
            parts.append(f' "{key}": [\n{body}\n ]')
        return write_text(path, ",\n".join(parts) + "\n}\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Loads a table. Raises ConfigError."""
        return cls.parse(read_json(path), str(path))


@lru_cache(maxsize=1)
def read_latencies() -> LatencyTable:
    """The table that comes with the package."""
    return LatencyTable.load(TABLE)


def _without_empty(row: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if value != ""}
