"""`mobilezoo export --matrix`: every variant × target × precision, one record per cell, and the table of them."""

import fnmatch
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mobilezoo.artifacts import save_json
from mobilezoo.config import config_names
from mobilezoo.errors import MobilezooError, UnknownNameError
from mobilezoo.reading import read_json
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo_export import (
    ExportConfig,
    ExportHooks,
    ExportResult,
    ProofImages,
    export_model,
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
