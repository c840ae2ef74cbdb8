"""int8 files that keep sensitive segments in float: `mobilezoo export … --max-drop POINTS`.

Files of other precisions that are wanted as well are made as without it.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.artifacts import file_stem
from mobilezoo.data.config import DataConfig
from mobilezoo.errors import ConfigError, ExportError
from mobilezoo.workflows.accuracy_drop import wide_remedy, with_top1_drops
from mobilezoo.workflows.check_units import UnitChecks
from mobilezoo.workflows.export_images import ExportImages
from mobilezoo.workflows.hooks import Hooks
from mobilezoo.workflows.load_model import LoadedModel

if TYPE_CHECKING:
    from mobilezoo_export import ExportConfig, ExportResult, ModelSpec


MIXED = ("int8", "w8a8")
"""Precisions whose files can keep segments in float."""


def export_mixed(
    loaded: LoadedModel, model: "ModelSpec", config: "ExportConfig", images: ExportImages, out: Path, *, hooks: Hooks
) -> "list[ExportResult]":
    """One file for each target and precision; int8 ones have the fewest segments in float that hold top-1 on
    `images.labelled`.

    Args:
        loaded: a network with trained weights.
        model: name, input and labels of the files.
        config: `max_drop` in points of top-1, and precisions with int8 or w8a8 among them.
        images: compared, calibrated and scored on.
        out: folder of the files.
        hooks: receives the step under way.

    Raises:
        ConfigError: precision, weights or labelled images do not allow the search.
    """
    from mobilezoo_export import ExportResult, ExportSession, load_exporter
    from mobilezoo_export.quantize.mixed import SEGMENTS
    from mobilezoo_export.quantize.mixed_search import REMEDIES, search

    assert config.max_drop is not None
    source, max_drop = _labelled(loaded, config.precisions, images), config.max_drop
    top1_float = _float_top1(loaded, source, config.classes)

    def one(target: str, precision: str, session: ExportSession) -> "ExportResult":
        spec, checks = config.spec(model, precision), UnitChecks(config.check, hooks)
        name = f"{file_stem(model.model)}.{precision}{load_exporter(target).suffix}"

        def make(segments: tuple[int, ...], folder: Path, check: UnitChecks | None = None) -> "ExportResult":
            mixed = spec.model_copy(update={"float_segments": segments})
            return session.export(target, mixed, folder / name, overwrite=config.overwrite, check=check)

        if precision not in MIXED:
            hooks.on_status(f"{target}: {precision}")
            return make((), out, checks)
        wide = wide_remedy(target)
        try:
            found = search(
                make,
                lambda path: _top1(path, source, config.classes),
                top1_float,
                max_drop,
                lambda text: hooks.on_status(f"{target}: {text}"),
                ", ".join(filter(None, (wide, REMEDIES))),
            )
        except ExportError as error:
            return ExportResult(target=target, precision=precision, status="failed", reason=str(error))
        if found.float_segments and wide:
            hooks.on_message(
                f"{target} {precision}: {len(found.float_segments)} of {SEGMENTS} segments in float; {wide}"
            )
        return make(found.float_segments, out, checks).model_copy(update={"mixed": found})

    with ExportSession(loaded.network, config.spec(model, config.precisions[0]), images.proof) as session:
        made = [one(target, precision, session) for target in config.targets for precision in config.precisions]
    plain = [result for result in made if result.precision not in MIXED]
    scored = iter(with_top1_drops(loaded, config, images, plain, hooks))
    return [result if result.precision in MIXED else next(scored) for result in made]


def _labelled(loaded: LoadedModel, precisions: tuple[str, ...], images: ExportImages) -> DataConfig:
    """What top-1 is measured on. Raises ConfigError where nothing can be, or nothing need be, searched for."""
    if not set(MIXED) & set(precisions):
        raise ConfigError(
            f"--max-drop keeps parts of {' or '.join(MIXED)} files in float, got {','.join(precisions)!r}: "
            "add --precision int8"
        )
    if loaded.random_weights:
        raise ConfigError(f"{loaded.name!r} has random weights, no accuracy to keep: name a checkpoint for --max-drop")
    if images.labelled is None:
        raise ConfigError("--max-drop measures top-1 on labelled images: pass --data DATA")
    return images.labelled


def _float_top1(loaded: LoadedModel, source: DataConfig, classes: str | None) -> float:
    from mobilezoo.workflows.evaluate import evaluate_loaded

    return evaluate_loaded(loaded, source, classes).top1


def _top1(path: Path, source: DataConfig, classes: str | None) -> float:
    from mobilezoo.workflows.evaluate import evaluate_file

    return evaluate_file(path, source, classes).top1
