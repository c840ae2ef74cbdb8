"""Trains a network by a recipe, with fake quantization and exports from the export package."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.artifacts import Checkpoint, file_stem
from mobilezoo.config import config_names, find_config, is_yaml, load_record
from mobilezoo.errors import MobilezooError, near_names
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.hooks import SILENT, Hooks

if TYPE_CHECKING:
    from mobilezoo.train.trainer import ExportHooks


def train(
    config: "str | TrainConfig",
    overrides: tuple[str, ...] = (),
    *,
    out: Path | None = None,
    resume: bool = False,
    hooks: Hooks = SILENT,
) -> Checkpoint:
    """Load a recipe and train by it.

    Args:
        config: name or path of a recipe, a run folder to resume, or the record itself.
        overrides: dotted `KEY=VALUE` changes of a named recipe.
        out: run folder; None takes runs/NAME.
        resume: continue the run in the folder.
        hooks: `show_progress` lets the trainer draw its bars.

    Returns:
        The record of the best weights with its full path.

    Raises:
        MobilezooError: recipe, data or folder cannot be used.
    """
    named, recipe, stem = _recipe(config, overrides)
    if named is not None:
        _only_to_resume(named, out, resume)
    recipe = recipe.model_copy(update={"data": recipe.data.located()})
    from mobilezoo.train import trainer
    from mobilezoo.train.run_folder import RunFolder

    folder = named or out or Path("runs") / (stem if recipe.name is None else recipe.name or _model_name(recipe))
    if resume:
        recipe = recipe.model_copy(update={"model": RunFolder(folder).network_at_hand(recipe.model)})
    record = trainer.train(
        recipe,
        folder,
        resume=resume,
        show_progress=hooks.show_progress,
        export_hooks=export_hooks_for(recipe),
        resume_command=_resume_command(folder),
    )
    return record.model_copy(update={"path": str(folder / record.path)})


def _recipe(config: "str | TrainConfig", overrides: tuple[str, ...]) -> tuple[Path | None, TrainConfig, str]:
    """The run folder that was named, if one was; the recipe; the name of its run where it has none."""
    if isinstance(config, TrainConfig):
        return None, config, _model_name(config)
    path = recipe_file(config)
    return run_folder_named(config), load_record(TrainConfig, path, overrides), path.stem


def recipe_file(config: str) -> Path:
    """The YAML behind a recipe's name or path, or the one that a run folder keeps. Raises MobilezooError."""
    named = run_folder_named(config)
    return named / "config.yaml" if named is not None else find_config("train", config)


def run_folder_named(config: str) -> Path | None:
    """The run folder that stands in the place of a recipe. Raises MobilezooError where it holds no run."""
    if is_yaml(config) or config in config_names("train"):
        return None
    folder = Path(config).expanduser()
    if (folder / "config.yaml").is_file():
        return folder
    if folder.is_dir() or len(folder.parts) > 1:
        runs = [path.parent.name for path in folder.parent.glob("*/config.yaml")]
        near = [str(folder.parent / name) for name in near_names(folder.name, runs, 3)]
        hint = f"did you mean {', '.join(near)}?" if near else "name a run folder, a recipe or its YAML"
        raise MobilezooError(f"{config!r} holds no run (there is no config.yaml in it): {hint}")
    return None


def _model_name(recipe: TrainConfig) -> str:
    from mobilezoo.models import load_model_config

    return file_stem(load_model_config(recipe.model).name)


def _only_to_resume(folder: Path, out: Path | None, resume: bool) -> None:
    """Raise MobilezooError where a run's folder is named for anything else."""
    if not resume:
        raise MobilezooError(
            f"{str(folder)!r} already holds a run: add --resume to go on with it, or begin another by the same recipe: "
            f"mobilezoo train {shlex.quote(str(folder / 'config.yaml'))} name=OTHER"
        )
    if out is not None:
        raise MobilezooError(f"a run goes on in its own folder, {str(folder)!r}: leave --out out")


def _resume_command(folder: Path) -> str:
    """The command that resumes a run."""
    start = "mobilezoo" if os.environ.get("WORLD_SIZE", "1") == "1" else "torchrun … -m mobilezoo"
    name = str(folder) if len(folder.parts) > 1 else f"./{folder}"
    return f"{start} train {shlex.quote(name)} --resume"


def export_hooks_for(recipe: TrainConfig) -> "ExportHooks":
    """Fake quantization and exports where a recipe configures them; a missing toolchain raises before any training."""
    from mobilezoo.train.trainer import ExportHooks
    from mobilezoo_export import load_exporter

    settings = recipe.train
    if settings.qat:
        load_exporter("executorch").require()
    for target in settings.export_to if settings.export_every else ():
        load_exporter(target).require()

    def fake_quantized(network: Any, example: Any) -> Any:
        from mobilezoo_export.quantize.qat import FakeQuantized

        return FakeQuantized(network, example)

    return ExportHooks(
        fake_quantized=fake_quantized if settings.qat else None,
        write_int8=lambda trained, record, folder: _write_int8(recipe, trained, record, folder),
        export=(lambda weights: _export_and_score(recipe, weights)) if settings.export_every else None,
    )


def _export_and_score(recipe: TrainConfig, weights: Path) -> tuple[dict[str, float], list[str], list[str]]:
    """Export and score these weights as the commands do: metrics, lines on files, lines on failures."""
    from mobilezoo.workflows.evaluate import evaluate_file
    from mobilezoo.workflows.export import export
    from mobilezoo_export import ExportConfig

    targets, precisions = recipe.train.export_to, recipe.train.export_precision
    # all of the validation split is scored below
    files = ExportConfig(targets=targets, precisions=precisions, overwrite=True, scored_images=0)
    results = export(str(weights), files, out=weights.parent)
    metrics: dict[str, float] = {}
    lines, failures = [], []
    for result in results:
        name = f"export_{result.target}_{result.precision}"
        if result.path is None or result.artifact is None:
            failures.append(f"export to {result.target} {result.precision} {result.status}: {result.reason}")
            continue
        metrics[f"{name}_top1"] = evaluate_file(Path(result.path), recipe.data).top1
        metrics[f"{name}_mb"] = result.artifact.size_bytes / 1e6
        lines.append(f"{Path(result.path).name}: top-1 {metrics[f'{name}_top1']:.2f}%, {metrics[f'{name}_mb']:.2f} MB")
    return metrics, lines, failures


def _write_int8(recipe: TrainConfig, trained: Any, record: Checkpoint, folder: Path) -> tuple[list[str], list[str]]:
    """The int8 files with the learned ranges, scored: lines on them, and on those that failed."""
    from mobilezoo.data import sample_batch
    from mobilezoo.workflows.evaluate import evaluate_file
    from mobilezoo_export import ExportSpec
    from mobilezoo_export.quantize.qat_files import write_int8

    images = sample_batch(recipe.data, record.resolution, record.preprocessing, 32)
    spec = ExportSpec(
        model=Path(record.model).stem if is_yaml(record.model) else record.model,
        resolution=record.resolution,
        in_chans=record.in_chans,
        preprocessing=record.preprocessing,
        labels=record.labels,
    )
    name = f"{len(images)} images of {recipe.data.source} (split {recipe.data.val_split})"
    lines, failures = [], []
    for result in write_int8(trained, spec, folder / "export", images, name):
        if result.path is None:
            failures.append(f"int8 file for {result.target} {result.status}: {result.reason}")
            continue
        lines.append(f"{result.path}: top-1 {evaluate_file(Path(result.path), recipe.data).top1:.2f}%")
    return lines, failures
