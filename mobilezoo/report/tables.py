"""Records → rows of the page's tables; numbers are formatted in the template, units are in the names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mobilezoo.artifacts import Artifact
from mobilezoo.latency_report import DeviceInfo, Kind, LatencyReport

KINDS: dict[Kind, str] = {
    "phone": "Phones",
    "board": "Boards",
    "host": "Host computer",
    "browser": "Browsers",
}
"""Kinds of device that are timed, in the order of the page; their times are never put on one axis."""


@dataclass(frozen=True)
class Summary:
    """Statistics of the samples of one report, in ms."""

    median_ms: float
    p90_ms: float
    p99_ms: float
    mad_ms: float
    ci_low_ms: float
    ci_high_ms: float


@dataclass(frozen=True)
class LatencyRow:
    """One report."""

    label: str
    series: int
    model: str
    target: str
    precision: str
    device: DeviceInfo
    samples_ms: tuple[float, ...]
    summary: Summary
    load_ms: float | None
    first_run_ms: float | None
    noisy: tuple[str, ...]
    protocol: str
    measured_at: str


def latency_groups(reports: Sequence[LatencyReport]) -> list[tuple[str, list[LatencyRow]]]:
    """(heading, rows, fastest first) per device kind that occurs."""
    from mobilezoo_latency.stats import summary

    targets = list(dict.fromkeys(report.target for report in reports))
    groups: list[tuple[str, list[LatencyRow]]] = []
    for kind, heading in KINDS.items():
        of_kind = [report for report in reports if report.device.kind == kind]
        several = len({report.device.name for report in of_kind}) > 1
        rows = [
            LatencyRow(
                label=_label(report, with_device=several),
                series=targets.index(report.target),
                model=report.model,
                target=report.target,
                precision=report.precision,
                device=report.device,
                samples_ms=report.samples_ms,
                summary=Summary(**summary(report.samples_ms)),
                load_ms=report.load_ms,
                first_run_ms=report.first_run_ms,
                noisy=report.noisy,
                protocol=report.protocol.name,
                measured_at=report.measured_at,
            )
            for report in of_kind
            if report.samples_ms
        ]
        if rows:
            groups.append((heading, sorted(rows, key=lambda row: row.summary.median_ms)))
    return groups


def counted(reports: Sequence[LatencyReport]) -> list[LatencyReport]:
    """Reports with counts of emulated cores, by core, fewest cycles first; never listed beside measured times."""
    return sorted((r for r in reports if r.counts), key=lambda r: (r.device.name, r.counts.cycles if r.counts else 0))


def _label(report: LatencyReport, *, with_device: bool) -> str:
    parts = [short_name(report.model), report.target, report.precision]
    return " · ".join([*parts, report.device.name] if with_device else parts)


def short_name(model: str) -> str:
    """A model's name, also where it is given by the path of its YAML."""
    return model.rsplit("/", 1)[-1].removesuffix(".yaml")


@dataclass(frozen=True)
class ParityRow:
    """One exported file."""

    artifact: Artifact
    state: str
    """passed, failed or not run"""
    detail: str


def parity_rows(artifacts: Sequence[Artifact]) -> list[ParityRow]:
    """One row per exported file: whether it agrees with PyTorch, and where it was run."""
    rows = []
    for artifact in artifacts:
        if artifact.parity is None:
            rows.append(ParityRow(artifact, "not run", artifact.why_not_runnable or "no reason recorded"))
        else:
            rows.append(ParityRow(artifact, "passed" if artifact.parity.passed else "failed", artifact.parity.ran_in))
    return rows


def model_rows(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows with the keys name, params, macs, resolution and top1; missing values are None."""
    return [{key: model.get(key) for key in ("name", "params", "macs", "resolution", "top1")} for model in models]


def tool_versions(artifacts: Sequence[Artifact]) -> dict[str, str]:
    """All toolchain versions that occur, several of one tool joined."""
    found: dict[str, list[str]] = {}
    for artifact in artifacts:
        for tool, version in artifact.tools.items():
            if version not in found.setdefault(tool, []):
                found[tool].append(version)
    return {tool: ", ".join(found[tool]) for tool in sorted(found)}
