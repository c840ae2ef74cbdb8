"""Lookup tables: a network's latency as the sum of its blocks', plus an overhead fitted to whole networks.

The sum alone is biased: blocks measured by themselves pay for entering and leaving the runtime, and find other things
in the cache. Two numbers correct most of it, a scale and a constant; the remaining error is measured on networks that
were left out of the fit, and stored with the table.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError, MobilezooError, existing_path, shortened
from mobilezoo.files import write_text
from mobilezoo.latency_report import DeviceInfo, Estimate, Protocol
from mobilezoo.reading import read_json
from mobilezoo_latency.contract import Device
from mobilezoo_latency.estimators.speed import at_one_speed
from mobilezoo_latency.measuring import profile
from mobilezoo_latency.registry import load_device
from mobilezoo_latency.store import Store

MIN_NETWORKS = 3


class WholeNetwork(NamedTuple):
    """A network as the keys of its blocks, and its measured latency."""

    keys: Sequence[str]
    ms: float


class Table(Record):
    """Milliseconds of blocks on one device."""

    schema_version: Literal[1] = 1
    device: DeviceInfo
    source: str
    blocks_ms: dict[str, PositiveFloat]
    scale: float = 1.0
    overhead_ms: float = 0.0
    error_percent: NonNegativeFloat | None = None
    """Mean absolute percentage error on whole networks, each left out once; None until `fit_overhead`."""
    low_ratio: NonNegativeFloat | None = None
    high_ratio: NonNegativeFloat | None = None
    """10th and 90th percentile of measured over composed latency."""
    networks: int = 0

    def compose(self, keys: Sequence[str], device: DeviceInfo | None = None) -> Estimate:
        """Estimates a network's latency from its blocks.

        Args:
            keys: the network's blocks, repeated as often as they occur.
            device: if given, must be the table's device.

        Raises:
            DeviceError: a block is missing, the table is of another device, or its error is unknown.
        """
        if device is not None and (device.name, device.runtime) != (self.device.name, self.device.runtime):
            mine, other = (f"{d.name} ({d.runtime})" for d in (self.device, device))
            raise DeviceError(f"this table is for {mine}, not for {other}")
        if self.error_percent is None or self.low_ratio is None or self.high_ratio is None:
            raise DeviceError(f"the table of {self.device.name} has no known error: fit its overhead to whole networks")
        ms = self.scale * self.sum_ms(keys) + self.overhead_ms
        if not (ms >= 0 and math.isfinite(ms * self.high_ratio)):
            raise DeviceError(f"the table of {self.device.name} gives {ms:g} ms: its scale or overhead is wrong")
        return Estimate(
            latency_ms=ms,
            low_ms=ms * self.low_ratio,
            high_ms=ms * self.high_ratio,
            error_percent=self.error_percent,
            basis=f"{len(self.blocks_ms)} blocks, fitted to {self.networks} networks on {self.device.name}",
        )

    def sum_ms(self, keys: Sequence[str]) -> float:
        """The plain sum of block latencies. Raises DeviceError for a block that was not measured."""
        missing = next((key for key in keys if key not in self.blocks_ms), None)
        if missing is not None:
            raise DeviceError(f"the table of {self.device.name} has no block {missing!r}: measure it first")
        return sum(self.blocks_ms[key] for key in keys)

    def fit_overhead(self, networks: Sequence[WholeNetwork]) -> "Table":
        """The table with scale, overhead and error from whole networks of the same device. Raises MobilezooError."""
        if len(networks) < MIN_NETWORKS:
            raise MobilezooError(f"an overhead needs at least {MIN_NETWORKS} measured networks, got {len(networks)}")
        sums = np.asarray([self.sum_ms(n.keys) for n in networks])
        real = np.asarray([n.ms for n in networks])
        scale, overhead = _line(sums, real)
        ratios = [real[i] / _left_out(sums, real, i) for i in range(len(real))]
        update = {
            "scale": scale,
            "overhead_ms": overhead,
            "error_percent": 100 * fmean(abs(1 / ratio - 1) for ratio in ratios),
            "low_ratio": float(np.percentile(ratios, 10)),
            "high_ratio": float(np.percentile(ratios, 90)),
            "networks": len(networks),
        }
        return self.model_copy(update=update)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, atomically."""
        return write_text(Path(path), self.model_dump_json(indent=1) + "\n")


def load_table(path: str | Path) -> Table:
    """Read a saved table. Raises MobilezooError for a damaged one."""
    return Table.parse(read_json(existing_path(path, "latency table")), str(path))


def measure_table(
    blocks: Mapping[str, str | Path],
    device: str | Path | Device = "host",
    protocol: str | Protocol = "screen",
    store: Store | None = None,
    networks: Sequence[tuple[Sequence[str], str | Path]] = (),
    on_message: Callable[[str], None] = lambda text: None,
) -> Table:
    """Measures exported blocks, then whole networks to fit the overhead.

    An interrupted call continues where it stopped, as results are in the store. All times are referred to one speed of
    the device.

    Args:
        blocks: key → exported file.
        device: a device, its name, or its YAML.
        protocol: a protocol or its name.
        store: database of results; by default the user's.
        networks: (keys of the blocks, exported file) of whole networks; without any, the error stays unknown.
        on_message: called with a line per file.

    Raises:
        MobilezooError: no blocks, files of several runtimes, or a file that cannot be measured.
    """
    if not blocks:
        raise MobilezooError("a latency table needs at least one block")
    chosen = load_device(device)
    files = [*blocks.values(), *(path for _, path in networks)]
    reports = []
    for number, file in enumerate(files, 1):
        on_message(f"measuring {number} of {len(files)}: {Path(file).name}")
        reports.append(profile(file, chosen, protocol, reuse="any", store=store))
    runtimes = {report.device.runtime for report in reports}
    if len(runtimes) > 1:
        raise DeviceError(f"blocks of one table need one runtime, not {', '.join(sorted(runtimes))}")
    times = at_one_speed(reports)
    table = Table(
        device=reports[0].device,
        source=f"measured, protocol {reports[0].protocol.name}",
        blocks_ms=dict(zip(blocks, times, strict=False)),
    )
    whole = [WholeNetwork(keys, ms) for (keys, _), ms in zip(networks, times[len(blocks) :], strict=True)]
    return table.fit_overhead(whole) if whole else table


def import_csv(path: str | Path, device: DeviceInfo, key: str = "key", ms: str = "mean_ms") -> Table:
    """Reads a published table from a CSV file with a block per row.

    Args:
        path: the file.
        device: the device that the times are of.
        key: column of the blocks' names.
        ms: column of their times in milliseconds.

    Raises:
        MobilezooError: the file cannot be read, or a row has no new name or no time above 0; with its line.
    """
    file = existing_path(path, "latency table")
    blocks: dict[str, float] = {}
    try:
        with file.open(encoding="utf-8", newline="") as handle:
            rows = csv.DictReader(handle)
            columns = list(rows.fieldnames or ())
            if missing := [name for name in (key, ms) if name not in columns]:
                raise MobilezooError(f"{file.name}: no column {missing[0]!r}, only {shortened(repr(columns))}")
            for row in rows:
                place = f"{file.name}, line {rows.line_num}"
                name = row[key]
                if not name:
                    raise MobilezooError(f"{place}: no block name")
                if name in blocks:
                    raise MobilezooError(f"{place}: block {shortened(repr(name))} stands there twice")
                blocks[name] = _block_ms(row[ms], place)
    except (OSError, ValueError, csv.Error) as error:
        raise MobilezooError(f"{file.name}: cannot be read as CSV: {error}") from None
    if not blocks:
        raise MobilezooError(f"{file.name}: no row below the columns {key!r} and {ms!r}")
    return Table(device=device, source=file.name, blocks_ms=blocks)


def _block_ms(text: str | None, place: str) -> float:
    """Raises MobilezooError."""
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value <= 0:
        raise MobilezooError(f"{place}: {shortened(repr(text or ''))} is no latency: milliseconds above 0 are needed")
    return value


def _line(sums: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Scale and non-negative overhead with the least squared relative error."""
    from scipy.optimize import nnls

    (scale, overhead), _ = nnls(np.stack([sums, np.ones_like(sums)], axis=1) / real[:, None], np.ones_like(real))
    return float(scale), float(overhead)


def _left_out(sums: np.ndarray, real: np.ndarray, index: int) -> float:
    keep = np.arange(len(real)) != index
    scale, overhead = _line(sums[keep], real[keep])
    return float(scale * sums[index] + overhead)
