"""`mobilezoo export --matrix`: every variant × target × precision, one record per cell, and the table of them."""

import fnmatch
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mobilezoo.artifacts import save_json
from mobilezoo.config import config_names
from mobilezoo.errors import MobilezooError, UnknownNameError
from mobilezoo.files import write_text
from mobilezoo.reading import read_json
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo_export import (
    ExportConfig,
    ExportHooks,
    ExportResult,
    ProofImages,
    export_model,
    list_targets,
    load_exporter,
)
from mobilezoo_export.convert import Converters
from mobilezoo_export.images import sample_images

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION_SEED = 1
"""Other crops than those that parity is measured on."""


def run_matrix(
    models: Sequence[str],
    targets: Sequence[str],
    precisions: Sequence[str],
    out: Path,
    *,
    overwrite: bool = False,
    keep_files: bool = False,
    hooks: Hooks = SILENT,
) -> list[tuple[str, ExportResult]]:
    """Export every cell that has no record below `out/records` yet.

    Weights are random, with random norms whose variances fit the images.

    Args:
        models: zoo names, patterns of them (`shvit_*`) or `timm:NAME`; none stands for the whole zoo.
        targets: names of targets.
        precisions: names of precisions.
        out: folder of the records, and of the files while they are needed.
        overwrite: export cells that have a record too.
        keep_files: leave the files in place once their record is written.
        hooks: receives the progress.

    Returns:
        (model, result) of every cell of these models, targets and precisions.

    Raises:
        UnknownNameError: a model or target is unknown.
    """
    for target in targets:
        load_exporter(target)  # an unknown one is an error now, not after hours of work
    names = chosen(models)
    cells = [(name, target, precision) for name in names for target in targets for precision in precisions]
    done = 0

    def starting(what: str) -> None:
        hooks.on_progress(what, done, len(cells))

    with Converters() as converters:
        for name in names:
            todo = [(t, p) for n, t, p in cells if n == name and (overwrite or not _record(out, name, t, p).is_file())]
            done += len(targets) * len(precisions) - len(todo)
            for wanted_targets, wanted in _blocks(todo):

                def finished(result: ExportResult, name: str = name) -> None:
                    nonlocal done
                    save_json(_record(out, name, result.target, result.precision), result)
                    done += 1

                begin = partial(_start_cell, starting, name)
                config = ExportConfig(targets=tuple(wanted_targets), precisions=tuple(wanted), overwrite=True)
                _export(name, config, out / "files", converters, ExportHooks(begin, finished))
                if not keep_files:
                    shutil.rmtree(out / "files", ignore_errors=True)
    return [
        (name, ExportResult.parse(read_json(_record(out, name, target, precision)), name))
        for name, target, precision in cells
    ]


def _start_cell(starting: Callable[[str], None], name: str, target: str, precision: str) -> None:
    starting(f"{name} {target} {precision}")


def chosen(models: Sequence[str]) -> list[str]:
    """Zoo names and `timm:NAME`s that the models stand for. Raises UnknownNameError for one that matches none."""
    zoo = config_names("models")
    found: list[str] = []
    for pattern in models or ["*"]:
        matches = [pattern] if pattern.startswith("timm:") else fnmatch.filter(zoo, pattern)
        if not matches:
            raise UnknownNameError("model", pattern, zoo)
        found += [name for name in matches if name not in found]
    return found


def _blocks(cells: Sequence[tuple[str, str]]) -> list[tuple[list[str], list[str]]]:
    """(target, precision) pairs as blocks of targets that want the same precisions."""
    wanted: dict[str, list[str]] = {}
    for target, precision in cells:
        wanted.setdefault(target, []).append(precision)
    blocks: dict[tuple[str, ...], list[str]] = {}
    for target, precisions in wanted.items():
        blocks.setdefault(tuple(precisions), []).append(target)
    return [(targets, list(precisions)) for precisions, targets in blocks.items()]


def _export(name: str, config: ExportConfig, files: Path, converters: Converters, hooks: ExportHooks) -> None:
    """The cells of one model: what cannot be done is a result too."""
    import torch

    from mobilezoo.models.randomize import as_if_trained
    from mobilezoo.workflows.export import spec_of
    from mobilezoo.workflows.load_model import load_model

    torch.manual_seed(0)
    loaded = load_model(name)
    spec = spec_of(loaded)
    calibration = sample_images(spec, seed=CALIBRATION_SEED)
    as_if_trained(loaded.network, torch.from_numpy(calibration[:16]))
    images = ProofImages(calibration=calibration)
    try:
        export_model(loaded.network, spec, config, files, images=images, isolate=converters, hooks=hooks)
    except MobilezooError as error:  # before any target: the network cannot be traced
        assert hooks.on_result is not None
        for target in config.targets:
            for p in config.precisions:
                hooks.on_result(ExportResult(target=target, precision=p, status="failed", reason=str(error)))


def _record(out: Path, name: str, target: str, precision: str) -> Path:
    return out / "records" / name.replace(":", "_").replace("/", "_") / f"{target}.{precision}.json"


def read_records(out: Path) -> list[tuple[str, ExportResult]]:
    """Every record below a matrix folder, sorted by model."""
    found = []
    for path in sorted((out / "records").glob("*/*.json")):
        found.append((path.parent.name, ExportResult.parse(read_json(path), str(path))))
    return found


def write_matrix(results: Sequence[tuple[str, ExportResult]], path: Path) -> Path:
    """The table as Markdown: a row per model and target, a cell per precision; models not run are listed below.

    Args:
        results: (model, result) pairs.
        path: file to write.
    """
    names = dict.fromkeys([*config_names("models"), *(name for name, _ in results)])
    by_cell = {(name, r.target, r.precision): r for name, r in results}
    targets = [target for target in list_targets() if any(r.target == target for _, r in results)]
    precisions = sorted({r.precision for _, r in results}, key=lambda p: (*PRECISIONS, p).index(p))
    done = [name for name in names if any(key[0] == name for key in by_cell)]
    missing = [name for name in names if name not in done]
    lines = [
        "# Export matrix\n",
        "Written by `mobilezoo export --matrix --table docs/export-matrix.md`. Weights are random, with random norms "
        "whose variances fit the calibration images. A cell gives the file's size, its largest difference from "
        "PyTorch over the deviation of the logits and the signal-to-error ratio, on 64 crops of real photographs, run "
        "in the file's own runtime (Core ML: program check). Random networks lose more in int8 than trained ones. The "
        "last columns are of the fp32 file.\n",
        f"| model | target | {' | '.join(precisions)} | operators | transposes | XNNPACK partitions | outside |",
        "|---|---|" + "---|" * len(precisions) + "--:|--:|--:|--:|",
    ]
    for name in done:
        for target in targets:
            cells = [_cell(by_cell.get((name, target, p))) for p in precisions]
            lines.append(
                f"| {name} | {target} | {' | '.join(cells)} | {_counts(by_cell.get((name, target, 'fp32')))} |"
            )
    if missing:
        lines.append(f"\nNot run yet: {', '.join(missing)}.")
    return write_text(path, "\n".join(lines) + "\n")


def _cell(result: ExportResult | None) -> str:
    if result is None:
        return "not run"
    if result.artifact is None:
        return f"**{result.status}**: {result.reason}".replace("|", "/")
    size, parity = f"{result.artifact.size_bytes / 1e6:.1f} MB", result.artifact.parity
    return f"{size}, {parity.relative:.1e}, {parity.snr_db:.0f} dB" if parity else f"{size}, not run here"


def _counts(result: ExportResult | None) -> str:
    found = result.artifact.coverage if result and result.artifact else None
    if found is None:
        return " | | | "
    transposes = sum(count for op, count in found.ops.items() if op.lower() == "transpose")
    outside = "" if found.outside is None else str(sum(found.outside.values()))
    partitions = "" if found.partitions is None else str(found.partitions)
    return f"{sum(found.ops.values())} | {transposes} | {partitions} | {outside}"
