"""The end of a search: one of its networks trained in full, exported, scored and timed as a file."""

from pathlib import Path

from mobilezoo.artifacts import save_json
from mobilezoo.errors import ExportError
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.finetune_result import FINETUNE_NAME, FinetuneResult
from mobilezoo.search.records import TrialRecord
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.candidate_evaluator import estimate_of
from mobilezoo.workflows.hooks import SILENT, Hooks


def finetune_candidate(
    settings: SearchConfig, trial: TrialRecord, recipe: TrainConfig, out: Path, *, hooks: Hooks = SILENT
) -> FinetuneResult:
    """Train a candidate by a recipe, export it to the search's target, score and time the file.

    Args:
        settings: target and devices of the search.
        trial: the candidate; its search figures are kept for comparison.
        recipe: the training; it is resumed where it was begun before.
        out: folder of the run and the files.
        hooks: receives messages and progress.

    Raises:
        ExportError: the trained network cannot be exported.
        MobilezooError: the export's toolchain is missing, before any training.
    """
    from mobilezoo.train.trainer import train
    from mobilezoo.workflows.evaluate import Loading, evaluate
    from mobilezoo.workflows.export import export
    from mobilezoo_export import ExportConfig, load_exporter
    from mobilezoo_latency import profile

    load_exporter(settings.target).require()  # a missing toolchain is an error before hours of training
    run = out / "train"
    record = train(recipe, run, resume=run.exists(), show_progress=hooks.show_progress)
    files = ExportConfig(targets=(settings.target,), overwrite=True)
    (exported,) = export(str(run / record.path), files, out=out, hooks=hooks)
    if exported.path is None:
        raise ExportError(f"{exported.target}: {exported.reason}")
    data = recipe.data
    scores = evaluate(exported.path, data.source, loading=Loading(data.batch_size, data.workers), hooks=hooks)
    devices = () if settings.estimator else settings.devices
    result = FinetuneResult(
        number=trial.number,
        checkpoint=str(run / record.path),
        file=exported.path,
        search_top1=trial.top1,
        top1=record.top1,
        file_top1=scores.top1,
        search_latency=trial.latency,
        latency={device: estimate_of(profile(exported.path, device)) for device in devices},
    )
    save_json(out / FINETUNE_NAME, result)
    return result
