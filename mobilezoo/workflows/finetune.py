"""The end of a search: one of its networks trained in full, exported, scored and timed as a file."""

from pathlib import Path

from mobilezoo.artifacts import save_json
from mobilezoo.config import load_record
from mobilezoo.errors import ExportError
from mobilezoo.search.finished import FINISHED_NAME, Finished
from mobilezoo.search.records import SearchConfig, TrialRecord
from mobilezoo.workflows.candidate_evaluator import estimate_of


def finish(
    settings: SearchConfig, trial: TrialRecord, path: Path, overrides: tuple[str, ...], out: Path, progress: bool
) -> Finished:
    """Train by the recipe at `path` (or go on), export to the search's target, score and time the file."""
    from mobilezoo.train.config import TrainConfig
    from mobilezoo.train.trainer import train
    from mobilezoo.workflows.evaluate import evaluate_subject
    from mobilezoo.workflows.export import export_subject
    from mobilezoo.workflows.export_images import NONE_NAMED
    from mobilezoo.workflows.model_options import SubjectOptions
    from mobilezoo_export import load_exporter
    from mobilezoo_latency import profile

    recipe = load_record(TrainConfig, path, overrides)
    load_exporter(settings.target).require()  # told before hours of training
    run = out / "train"
    record = train(recipe, run, resume=run.exists(), progress=progress)
    (exported,) = export_subject(
        str(run / record.path),
        [settings.target],
        ["fp32"],
        SubjectOptions(),
        NONE_NAMED,
        out,
        overwrite=True,
        progress=progress,
    )
    if exported.path is None:
        raise ExportError(f"{exported.target}: {exported.reason}")
    data = recipe.data
    scored = evaluate_subject(exported.path, data.source, SubjectOptions(), data.batch_size, data.workers, progress)
    devices = () if settings.estimator else settings.devices
    result = Finished(
        number=trial.number,
        checkpoint=str(run / record.path),
        file=exported.path,
        search_top1=trial.top1,
        top1=record.top1,
        file_top1=scored["top1"],
        search_latency=trial.latency,
        latency={device: estimate_of(profile(exported.path, device)) for device in devices},
    )
    save_json(out / FINISHED_NAME, result)
    return result
