"""Which network to take for a phone: the front of accuracy and latency within limits, and why others are not on it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobilezoo.config import config_names
from mobilezoo.errors import MobilezooError, UnknownNameError
from mobilezoo.latency_report import LatencyReport
from mobilezoo.models.entries import Entry, accepted, entries
from mobilezoo.models.latency_table import LatencyRow, LatencyTable, read_latencies
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.recommendation import TASKS, LeftOut, Pick, Recommendation, Wanted

if TYPE_CHECKING:
    from mobilezoo_latency import ProfileConfig

Measure = Callable[[str, "ProfileConfig", Hooks], LatencyReport]
PATIENCE = 2
"""Candidates in a row that may be too slow on the user's device before slower ones are not measured any more."""


@dataclass
class _Found:
    """A file of a network with its latency."""

    entry: Entry
    precision: str
    size_bytes: int | None
    ms: float
    low_ms: float
    high_ms: float
    error: str


class _Reasons:
    """Why networks were left out; a network's last word is kept, since another precision of it may do."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def add(self, name: str, reason: str) -> None:
        self._of[name] = reason

    def without(self, names: set[str]) -> tuple[LeftOut, ...]:
        """One record per reason, for all networks but these; the most frequent reason first."""
        grouped: dict[str, list[str]] = {}
        for name, reason in self._of.items():
            if name not in names:
                grouped.setdefault(reason, []).append(name)
        ordered = sorted(grouped.items(), key=lambda item: (-len(item[1]), item[0]))
        return tuple(LeftOut(reason=reason, models=tuple(names)) for reason, names in ordered)


def recommend(wanted: Wanted, *, hooks: Hooks = SILENT, measure: Measure | None = None) -> Recommendation:
    """Choose networks for a device.

    Args:
        wanted: device and limits.
        hooks: receives messages and progress where something is measured.
        measure: replaces the measurement of a network on a device that is not in the table.

    Raises:
        UnknownNameError: no such device, precision or task.
        MobilezooError: nothing is within the limits; with the nearest there is.
    """
    table, reasons = read_latencies(), _Reasons()
    _check(wanted, table)
    in_table = wanted.device in table.cores
    core = wanted.device if in_table else next(iter(table.cores))
    eligible = list(_eligible(wanted, reasons))
    if not eligible:
        raise MobilezooError(_none_eligible(wanted))
    found = list(_counted(eligible, core, wanted, table, reasons))
    if not found:
        raise MobilezooError(f"no network within these limits is counted yet on {core} in {wanted.precision}")
    found = _small_enough(found, wanted, reasons)
    basis, kind = table.cores[core].basis, "emulated"
    if not in_table:
        candidates = _front(found, reasons, f"behind the front of {core}, where the candidates come from")
        found, kind, basis = _measured(candidates, wanted, reasons, hooks, measure or _profiled)
    found = _fast_enough(found, wanted, reasons)
    front = tuple(_pick(one) for one in _front(found, reasons, "another is as fast and more accurate"))
    left_out = reasons.without({pick.model for pick in front})
    return Recommendation.parse(
        {"wanted": wanted.model_dump(), "kind": kind, "basis": basis, "front": [p.model_dump() for p in front]}
        | {"left_out": [one.model_dump() for one in left_out]},
        "recommendation",
    )


def _check(wanted: Wanted, table: LatencyTable) -> None:
    if wanted.device not in table.cores:
        from mobilezoo_latency import load_device

        load_device(wanted.device)
    if wanted.precision != "any" and wanted.precision not in table.precisions:
        raise UnknownNameError("precision", wanted.precision, (*table.precisions, "any"))
    if wanted.task not in TASKS:
        raise UnknownNameError("task", wanted.task, TASKS)


def _eligible(wanted: Wanted, reasons: _Reasons) -> Iterator[Entry]:
    """Networks that what is published of them does not rule out."""
    for entry in entries():
        if entry.is_peer and not wanted.peers:
            continue
        if entry.top1 is None:
            reasons.add(entry.name, "no published top-1")
        elif not accepted(entry.license, wanted.license):
            reasons.add(entry.name, f"its weights' license is not {wanted.license}")
        elif wanted.task == "dense" and entry.strides is not None and not entry.is_dense:
            reasons.add(entry.name, "gives no feature maps of several sizes")
        else:
            yield entry


def _none_eligible(wanted: Wanted) -> str:
    known = sorted({entry.license for entry in entries() if entry.license})
    others = "" if wanted.task == "classify" else f" and is known to be of use for {wanted.task!r}"
    return f"no network has weights under a license {wanted.license!r}{others}: there are {', '.join(known)}"


def _counted(
    eligible: Sequence[Entry], core: str, wanted: Wanted, table: LatencyTable, reasons: _Reasons
) -> Iterator[_Found]:
    """Files in the table."""
    rows: dict[str, list[LatencyRow]] = {}
    for row in table.rows:
        if row.device == core and wanted.precision in (row.precision, "any"):
            rows.setdefault(row.model, []).append(row)
    facts = table.cores[core]
    for entry in eligible:
        if entry.name not in rows:
            reasons.add(entry.name, f"not counted on {core} yet")
        for row in rows.get(entry.name, ()):
            if row.latency_ms is None:
                reasons.add(entry.name, f"no {row.precision} file: {row.reason}")
                continue
            low, high = row.latency_ms * facts.low_ratio, row.latency_ms * facts.high_ratio
            error = table.error_of(core, row.precision)
            yield _Found(entry, row.precision, row.size_bytes, row.latency_ms, low, high, error)


def _small_enough(found: list[_Found], wanted: Wanted, reasons: _Reasons) -> list[_Found]:
    """Files within `max_mb`. Raises MobilezooError for none."""
    limit = wanted.max_mb
    if limit is None:
        return found
    kept = []
    for one in found:
        if one.size_bytes is not None and one.size_bytes <= limit * 1e6:
            kept.append(one)
        else:
            reasons.add(one.entry.name, f"larger than {limit:g} MB")
    if not kept:
        small = min(found, key=lambda one: one.size_bytes or 0)
        size = f"{(small.size_bytes or 0) / 1e6:.2f} MB"
        raise MobilezooError(f"--max-mb {limit:g}: the smallest file is {small.entry.name} {small.precision}, {size}")
    return kept


def _fast_enough(found: list[_Found], wanted: Wanted, reasons: _Reasons) -> list[_Found]:
    """Files within `max_ms`. Raises MobilezooError for none."""
    if wanted.max_ms is None:
        return found
    kept = []
    for one in found:
        if one.ms <= wanted.max_ms:
            kept.append(one)
        else:
            reasons.add(one.entry.name, f"slower than {wanted.max_ms:g} ms")
    if not kept:
        fast = min(found, key=lambda one: one.ms)
        raise MobilezooError(
            f"--max-ms {wanted.max_ms:g}: the fastest of {len(found)} files on {wanted.device} is "
            f"{fast.entry.name} {fast.precision}, {fast.ms:.2f} ms"
        )
    return kept


def _front(found: Sequence[_Found], reasons: _Reasons, behind: str) -> list[_Found]:
    """Those that no other one beats in latency and top-1, fastest first."""
    front: list[_Found] = []
    best = 0.0
    for one in sorted(found, key=lambda one: (one.ms, -(one.entry.top1 or 0.0))):
        if (one.entry.top1 or 0.0) > best:
            best = one.entry.top1 or 0.0
            front.append(one)
        else:
            reasons.add(one.entry.name, behind)
    return front


def _measured(
    candidates: Sequence[_Found], wanted: Wanted, reasons: _Reasons, hooks: Hooks, measure: Measure
) -> tuple[list[_Found], str, str]:
    """(candidates with their latency on the user's device, kind of the device, what it is in words)."""
    from mobilezoo_latency import ProfileConfig, summarize

    found: list[_Found] = []
    kind, basis, slow = "host", "", 0
    for one in hooks.track(candidates, f"measuring on {wanted.device}", len(candidates)):
        if slow >= PATIENCE:
            reasons.add(one.entry.name, f"not measured: {PATIENCE} faster candidates are too slow already")
            continue
        report = measure(one.entry.name, ProfileConfig(device=wanted.device, precisions=(one.precision,)), hooks)
        times, noise = summarize(report), "; ".join(report.noisy)
        error = f"noisy: {noise}" if noise else ""
        if report.estimate is not None:
            error = report.estimate.error_for(one.precision)
        ms = times["median_ms"]
        found.append(
            _Found(one.entry, one.precision, one.size_bytes, ms, times["ci_low_ms"], times["ci_high_ms"], error)
        )
        slow = slow + 1 if wanted.max_ms is not None and ms > wanted.max_ms else 0
        device = report.device
        kind, basis = device.kind, ", ".join(part for part in (device.name, device.cpu, device.runtime) if part)
    return found, kind, basis


def _profiled(model: str, config: "ProfileConfig", hooks: Hooks) -> LatencyReport:
    """One network, exported and measured by the screening protocol."""
    from mobilezoo.workflows.profile import profile

    (report,) = profile([model], config, hooks=hooks)
    return report


def _pick(one: _Found) -> Pick:
    entry = one.entry
    license_, command = _way(entry, one.precision)
    return Pick(
        model=entry.name,
        precision=one.precision,
        latency_ms=round(one.ms, 4),
        low_ms=round(one.low_ms, 4),
        high_ms=round(one.high_ms, 4),
        latency_error=one.error,
        top1=entry.top1 or 0.0,
        distilled=entry.distilled,
        license=license_,
        size_bytes=one.size_bytes,
        command=command,
        **{key: getattr(entry, key) for key in ("params", "macs", "resolution", "source")},
    )


def _way(entry: Entry, precision: str) -> tuple[str, str]:
    """(license of the weights, the command that makes a file of them); those whose published score is nearest."""
    files = f"--to litert --precision {precision}" + (
        " --calib folder:IMAGES" if precision in ("int8", "w8a16") else ""
    )
    if entry.is_peer:
        return entry.license, f"mobilezoo export {entry.name} --pretrained {files}"
    from mobilezoo.models.published.choose import described

    weights = described(entry.name).weights
    if not weights:
        known = entry.family in config_names("train")
        recipe, more = (entry.family, "") if known else ("RECIPE.yaml", ", nor a recipe")
        return entry.license, f"mobilezoo train {recipe} model={entry.name}  # no weights are published{more}"
    scored = {tag: abs((file.top1 or 0.0) - (entry.top1 or 0.0)) for tag, file in weights.items()}
    tag = min(scored, key=lambda tag: scored[tag])
    by_hand = " (fetched by hand first: mobilezoo weights fetch)" if weights[tag].access == "browser" else ""
    command = f"mobilezoo export {entry.name} --pretrained={tag} {files}"
    return weights[tag].license, command + (f"  #{by_hand}" if by_hand else "")
