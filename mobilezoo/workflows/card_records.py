"""Records that lie near a checkpoint or an exported file, and those of the results store, for its model card."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mobilezoo.artifacts import Artifact, has_record, load_record_of
from mobilezoo.errors import MobilezooError
from mobilezoo.latency_report import LatencyReport
from mobilezoo.reading import read_json
from mobilezoo.workflows.hooks import Hooks

LATENCY = ".latency.json"
"""Ending of latency records."""


def exported_of(weights: Path, sha256: str, hooks: Hooks) -> Iterator[Artifact]:
    """Records of the files made of a checkpoint that lie beside it, in `export` there or beside its folder.

    Args:
        weights: the checkpoint.
        sha256: its hash; files made of other weights are left out.
        hooks: receives what is left out, and why.
    """
    real = weights.resolve()
    for file in _recorded_files(weights):
        try:
            record = load_record_of(Artifact, file)
        except MobilezooError as error:
            hooks.on_warning(f"left out: {error}")
            continue
        if record.checkpoint is None or (file.parent / record.checkpoint).resolve() != real:
            continue
        if record.checkpoint_sha256 not in (None, sha256):
            hooks.on_warning(f"left out: {str(file)!r} was made of earlier weights: export it again")
            continue
        yield record


def _recorded_files(weights: Path) -> Iterator[Path]:
    """Exported files with a record near a checkpoint."""
    from mobilezoo_export.registry import file_suffixes

    suffixes = file_suffixes()
    for folder in (weights.parent, weights.parent / "export", weights.parent.parent / "export"):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        yield from (file for file in files if file.suffix in suffixes and has_record(file))


def latencies_of(path: Path, artifacts: Sequence[Artifact], hooks: Hooks) -> list[LatencyReport]:
    """Reports of exactly these files: those that lie nearby, then those of the results store, each once.

    Args:
        path: the checkpoint or file.
        artifacts: records of the files.
        hooks: receives what cannot be read.
    """
    hashes = {record.sha256 for record in artifacts}
    found = [one for one in _reports_near(path, hooks) if one.artifact_sha256 in hashes]
    for one in sorted(hashes):
        found += stored_reports(artifact_sha256=one)
    known: dict[str, LatencyReport] = {}
    for report in found:
        known.setdefault(report.model_copy(update={"cached": False}).model_dump_json(), report)
    return list(known.values())


def _reports_near(path: Path, hooks: Hooks) -> Iterator[LatencyReport]:
    """Latency records beside a file, in `latency` there, and in `latency` beside its folder."""
    for folder in (path.parent, path.parent / "latency", path.parent.parent / "latency"):
        for file in sorted(folder.glob(f"*{LATENCY}")) if folder.is_dir() else []:
            try:
                yield LatencyReport.parse(read_json(file), str(file))
            except MobilezooError as error:
                hooks.on_warning(f"left out: {error}")


def stored_reports(**equals: str) -> list[LatencyReport]:
    """Reports of the results store; none where there is no store yet.

    Args:
        **equals: a column of the store → its value.
    """
    from mobilezoo_latency.store import Store, default_url

    address = default_url()
    if "://" not in address and not Path(address).expanduser().is_file():
        return []
    return [report for _, report in Store(address).rows(**equals)]
