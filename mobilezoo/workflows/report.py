"""`mobilezoo report`: gathers the records that lie in run folders and writes one page."""

from pathlib import Path
from typing import Any

from mobilezoo.artifacts import Artifact, Checkpoint, LatencyReport, read_record_of, record_path, why_changed
from mobilezoo.errors import MobilezooError, existing_path
from mobilezoo.files import COMMIT, tidy
from mobilezoo.reading import read_json
from mobilezoo.resolution import written


def write_report(folders: list[Path], out: Path) -> Path:
    """One page over all records found below the folders. Raises MobilezooError where there is nothing to show."""
    from mobilezoo.report import build_report
    from mobilezoo.search.records import RESULT_NAME, load_search_result
    from mobilezoo_export.registry import is_exported

    roots = [existing_path(folder, "run folder") for folder in folders]
    for folder in {committed.parent for root in roots for committed in root.rglob(f"*{COMMIT}")}:
        tidy(folder)
    runs = [metrics.parent for metrics in _found(roots, "metrics.csv")]
    files = [p for p in _found(roots, "*") if is_exported(p) and record_path(p).exists()]
    artifacts = [_artifact(file) for file in files]
    latencies = [LatencyReport.parse(read_json(path), str(path)) for path in _found(roots, "*.latency.json")]
    searches = _found(roots, RESULT_NAME)
    if not (runs or artifacts or latencies or searches):
        named = ", ".join(map(str, folders))
        raise MobilezooError(f"nothing to report in {named}: no run, file, latency or search in it")
    return build_report(
        out,
        title="mobilezoo report",
        models=[row for run in runs if (row := _model_row(run))],
        runs=runs,
        artifacts=artifacts,
        latencies=latencies,
        search=load_search_result(searches[0]) if searches else None,
    )


def _found(roots: list[Path], pattern: str) -> list[Path]:
    """Files below the folders, without those of a search's single candidates and of writers at work."""
    found = [(root, path) for root in roots for path in sorted(root.rglob(pattern))]
    return [path for root, path in found if not any(map(_is_left_out, path.relative_to(root).parts))]


def _is_left_out(name: str) -> bool:
    return name == "trials" or name.startswith(".")


def _artifact(file: Path) -> Artifact:
    """The record of a file; nothing it proved holds for a file that changed since."""
    record = read_record_of(Artifact, file)
    reason = why_changed(file, record)
    return record.model_copy(update={"parity": None, "not_run": reason}) if reason else record


def _model_row(run: Path) -> dict[str, Any] | None:
    """The network that a run trained; None for a supernet, which is no single network."""
    from mobilezoo.models import create_model, recorded_config
    from mobilezoo.models.macs import count

    weights = run / "best.safetensors"
    record = read_record_of(Checkpoint, weights)
    changed = why_changed(weights, record) is not None
    config = recorded_config(record, weights).built_for(record.resolution)
    if config.family == "supernet":
        return None
    network = create_model(
        config,
        num_classes=record.num_classes,
        in_chans=record.in_chans,
        **record.network_args(),
    ).eval()
    return {
        "name": f"{config.name} (weights changed since training)" if changed else config.name,
        "run": run.name,
        "resolution": written(record.resolution),
        **count(network, record.resolution),
        "top1": None if changed else record.top1,
        "dataset": record.dataset,
        "epoch": record.epoch,
    }
