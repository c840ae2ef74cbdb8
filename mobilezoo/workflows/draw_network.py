"""The picture of `mobilezoo show --picture`, with per-operator times where `mobilezoo profile --ops` measured them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mobilezoo.config import Record
from mobilezoo.errors import ConfigError, existing_path, writable_place
from mobilezoo.files import write_text
from mobilezoo.reading import read_json
from mobilezoo.report.network_picture import MapTime, Price, map_prices, network_svg
from mobilezoo.workflows.stage_latency import StagePrices

CHANNELS_LAST = (".tflite",)
"""Endings of files whose maps are [N, H, W, C]."""


class MeasuredOperator(Record):
    """One operator of `mobilezoo profile --ops --json`."""

    name: str
    type: str
    shape: str
    ms: float
    share: float


class MeasuredOperators(Record):
    """One file of `mobilezoo profile --ops --json`."""

    file: str
    runtime: str
    whole_ms: float
    sum_ms: float
    operators: tuple[MeasuredOperator, ...]
    how: str
    left_out: tuple[str, ...] = ()
    unproven: str | None = None


def draw_network(
    table: Mapping[str, Any], out: Path, operators: Path | None = None, prices: StagePrices | None = None
) -> Path:
    """Writes the picture of a network.

    Args:
        table: what `stage_table` gives.
        out: SVG file.
        operators: output of `mobilezoo profile FILE --ops --json`, for times by the size of map.
        prices: what `price_stages` gives, in place of `operators`; without either no times are drawn.

    Returns:
        The path of the picture.

    Raises:
        MobilezooError: `out` cannot be written, or `operators` holds no times of such a network.
    """
    writable_place(out, "--picture")
    if prices is not None:
        drawn = [Price(s.first, s.last, f"{s.value:.3g} {prices.unit}", s.share) for s in prices.stages]
        return write_text(out, network_svg(table, drawn, [price_words(prices)], prices.heading))
    if operators is None:
        return write_text(out, network_svg(table))
    measured = read_operators(operators)
    sizes = [(stage["output"][1], stage["output"][2]) for stage in table["stages"] if len(stage["output"]) == 3]
    times = times_by_map(measured, sizes)
    if not any(time.size for time in times):
        raise ConfigError(
            f"{str(operators)!r}: none of its operators writes a map of this network: is it of {table['name']!r}, "
            f"at {table['resolution']} pixels?"
        )
    timed_in = f"{Path(measured.file).name}, {measured.runtime}, {measured.whole_ms:.3g} ms as one"
    return write_text(out, network_svg(table, *map_prices(table["stages"], times, timed_in)))


def price_words(prices: StagePrices) -> str:
    """One sentence on what prices of stages are, and how far off."""
    what = f"Predicted, not timed: {prices.runtime} {prices.precision} counted on an emulated {prices.device}"
    if prices.basis is None:
        return f"{what}, {prices.whole:.3g} {prices.unit} in all; the core has no calibration, so there is no latency."
    error = f"mean error {prices.error_percent:.1f}% for whole networks, unmeasured for single stages"
    return f"{what}, {prices.whole:.3g} {prices.unit} in all; {error}; calibrated on {prices.basis}."


def read_operators(path: Path) -> MeasuredOperators:
    """The times of one file. Raises ConfigError where it holds none, or those of several."""
    data = read_json(existing_path(path, "operator times"))
    entries = data if isinstance(data, list) else [data]
    if len(entries) != 1:
        raise ConfigError(f"{str(path)!r} holds {len(entries)} files' times: profile one file with --ops --json")
    return MeasuredOperators.parse(entries[0], str(path))


def times_by_map(measured: MeasuredOperators, sizes: Sequence[tuple[int, int]]) -> list[MapTime]:
    """Sums of operators by the size of the map that they write, largest map first; the rest under None.

    Args:
        measured: the operators of one file.
        sizes: (height, width) of the network's maps.
    """
    last = Path(measured.file).suffix in CHANNELS_LAST
    sums: dict[tuple[int, int] | None, float] = defaultdict(float)
    for operator in measured.operators:
        sums[_size(operator.shape, sizes, last)] += operator.ms
    total = sum(sums.values()) or 1.0
    ordered = sorted(sums.items(), key=lambda item: (item[0] is None, [-side for side in item[0] or ()]))
    return [MapTime(size, ms, ms / total) for size, ms in ordered]


def _size(shape: str, sizes: Sequence[tuple[int, int]], channels_last: bool) -> tuple[int, int] | None:
    """The size of a map, also of one that is written as a row of tokens; None for what is no stage's."""
    try:
        dims = [int(number) for number in shape.split("×")]
    except ValueError:
        return None
    if len(dims) == 4:
        found = (dims[1], dims[2]) if channels_last else (dims[2], dims[3])
        return found if found in sizes else None
    if len(dims) == 3:
        return next((size for size in sizes if size[0] * size[1] == dims[1] > 1), None)
    return None
