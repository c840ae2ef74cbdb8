"""`mobilezoo export … --precision int8 --max-drop POINTS`: int8 files that keep sensitive stretches in float."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.cli.tables import print_table
from mobilezoo.data.config import DataConfig
from mobilezoo.errors import ConfigError, ExportError
from mobilezoo.workflows.export_images import ExportImages
from mobilezoo.workflows.load_model import Subject

if TYPE_CHECKING:
    from mobilezoo_export import ExportResult, ExportSpec


def export_mixed(
    subject: Subject,
    spec: "ExportSpec",
    targets: list[str],
    precisions: list[str],
    out: Path,
    images: ExportImages,
    max_drop: float,
    overwrite: bool,
    tell: Callable[[str], None],
    classes: str | None = None,
) -> "list[ExportResult]":
    """One file for each target, with the fewest stretches in float that hold top-1 on `images.labelled`.

    `classes` says which output stands for which class of the data (see `place_classes`).
    """
    from mobilezoo_export import ExportResult, export_model
    from mobilezoo_export.mixed import search

    source = _labelled(subject, precisions, images)
    top1_float = _float_top1(subject, source, classes)

    def one(target: str) -> "ExportResult":
        def make(groups: tuple[int, ...], folder: Path) -> "ExportResult":
            return export_model(
                subject.network,
                spec.model_copy(update={"float_groups": groups}),
                [target],
                precisions,
                folder,
                images=[images.parity],
                images_name=images.parity_name,
                calibration=[images.calibration],
                overwrite=overwrite,
            )[0]

        try:
            found = search(
                make,
                lambda path: _top1(path, source, classes),
                top1_float,
                max_drop,
                lambda text: tell(f"{target}: {text}"),
            )
        except ExportError as error:
            return ExportResult(target=target, precision=precisions[0], status="failed", reason=str(error))
        return make(found.float_groups, out).model_copy(update={"mixed": found})

    return [one(target) for target in targets]


def print_mixed(results: "list[ExportResult]") -> None:
    """What was kept in float, for results that tell."""
    rows = [
        (
            r.target,
            f"{r.mixed.top1_float:.2f}",
            f"{r.mixed.top1_int8:.2f}",
            f"{r.mixed.top1:.2f}",
            f"{r.mixed.drop:.2f}",
            ", ".join(str(group + 1) for group in r.mixed.float_groups) or "none",
            r.mixed.tried,
        )
        for r in results
        if r.mixed
    ]
    columns = (
        "target",
        "top-1 PyTorch",
        "all int8",
        "this file",
        "drop",
        "eighths in float",
        "files tried",
    )
    if rows:
        print_table("mixed precision", columns, rows)


def _labelled(subject: Subject, precisions: list[str], images: ExportImages) -> DataConfig:
    """What top-1 is measured on. Raises ConfigError where nothing can be, or nothing need be, searched for."""
    if precisions not in (["int8"], ["w8a8"]):
        raise ConfigError(f"--max-drop is for one precision, int8 or w8a8, got {','.join(precisions)!r}")
    if subject.fresh:
        raise ConfigError(f"{subject.name!r} has random weights, no accuracy to keep: name a checkpoint for --max-drop")
    if images.labelled is None:
        raise ConfigError("--max-drop measures top-1 on labelled images: pass --data DATA")
    return images.labelled


def _float_top1(subject: Subject, source: DataConfig, classes: str | None) -> float:
    from mobilezoo.workflows.evaluate import evaluate_loaded

    return evaluate_loaded(subject, source, classes).top1


def _top1(path: Path, source: DataConfig, classes: str | None) -> float:
    from mobilezoo.workflows.evaluate import evaluate_file

    top1: float = evaluate_file(path, source, classes=classes)["top1"]
    return top1
