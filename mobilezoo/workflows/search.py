"""`mobilezoo search`: candidates trained by the trainer, exported and timed, one study."""

from pathlib import Path

from mobilezoo.config import find_config, load_record, write_yaml
from mobilezoo.errors import ConfigError, MobilezooError, existing_path, require
from mobilezoo.search.finetune_result import FinetuneResult
from mobilezoo.search.networks import load_search_config, yaml_data
from mobilezoo.search.records import SearchConfig, SearchResult, TrialRecord
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.candidate_evaluator import CandidateEvaluator
from mobilezoo.workflows.finetune import finetune_candidate
from mobilezoo.workflows.hooks import SILENT, Hooks


def search(
    config: str | SearchConfig, overrides: tuple[str, ...] = (), *, out: Path | None = None, hooks: Hooks = SILENT
) -> SearchResult:
    """Begin or go on with the study that the config names, then measure its front once more."""
    require("optuna", "search")
    settings = config if isinstance(config, SearchConfig) else load_search_config(config, overrides)
    folder = out or Path("runs") / f"search-{settings.name}"
    result = _work(settings, folder, hooks)
    devices = _measured_devices(settings, result) if settings.remeasure else ()
    return _remeasure(settings, folder, devices, again=False, hooks=hooks) if devices else result


def work(study: str, name: str | None = None, *, out: Path | None = None, hooks: Hooks = SILENT) -> SearchResult:
    """Join a search from its run folder or database until all its trials are finished."""
    settings, folder = find_study(study, name, out)
    return _work(settings, folder, hooks)


def find_study(study: str, name: str | None = None, out: Path | None = None) -> tuple[SearchConfig, Path]:
    """(config, run folder) of a search named by its folder or its database's URL. Raises ConfigError."""
    require("optuna", "search")
    from mobilezoo.search.storage import stored_config
    from mobilezoo.search.study import CONFIG_NAME

    if "://" in study:
        name, data = stored_config(study, name)
        return SearchConfig.parse(data, f"search {name}"), out or Path("runs") / f"search-{name}"
    folder = existing_path(study, "run folder of a search")
    if not (folder / CONFIG_NAME).is_file():
        raise ConfigError(f"{study!r} holds no {CONFIG_NAME}: is it the folder of a search?")
    return load_record(SearchConfig, folder / CONFIG_NAME), out or folder


def _work(settings: SearchConfig, folder: Path, hooks: Hooks) -> SearchResult:
    """Run trials until all are finished; every one is a message."""
    from mobilezoo.search import study
    from mobilezoo.search.supernet.create import create_accuracy
    from mobilezoo.workflows.estimate_latency import is_table
    from mobilezoo_latency import load_device

    # What is missing or unknown is told before anything is exported or trained.
    load_record(TrainConfig, find_config("train", settings.recipe), settings.recipe_overrides)
    if settings.final_recipe is not None:
        load_record(TrainConfig, find_config("train", settings.final_recipe))
    for file in filter(None, (settings.estimator, settings.fallback)):
        is_table(Path(file).expanduser())
    for device in () if settings.estimator else settings.devices:
        load_device(device).close()

    def on_trial(trial: TrialRecord, best: float) -> None:
        hooks.on_message(_line(trial, best))
        hooks.on_progress(f"searching {settings.name}", trial.number + 1, settings.trials)

    evaluator = CandidateEvaluator(settings, hooks.on_warning)
    shared = create_accuracy(settings, folder, on_message=hooks.on_message)
    hooks.on_progress(f"searching {settings.name}", 0, settings.trials)
    result = study.search(settings, shared or evaluator.accuracy, evaluator.measure, folder, on_trial=on_trial)
    if shared is not None:
        shared.write(result, folder)
    return result


def _measured_devices(settings: SearchConfig, result: SearchResult) -> tuple[str, ...]:
    """Devices whose latencies were measured: an estimate is the same the second time."""
    if not result.front:
        return ()
    first = result.trial(result.front[0])
    values = dict(zip(settings.devices, [first.latency, *first.elsewhere.values()], strict=True))
    return tuple(device for device, value in values.items() if value is not None and value.measured)


def _remeasure(
    settings: SearchConfig, folder: Path, devices: tuple[str, ...], *, again: bool, hooks: Hooks
) -> SearchResult:
    from mobilezoo.search.study import remeasure

    evaluator = CandidateEvaluator(settings, hooks.on_warning)
    hooks.status("measuring the front once more")
    return remeasure(
        settings,
        lambda candidate: evaluator.remeasure(candidate, devices),
        folder,
        again=again,
        on_member=lambda trial: hooks.status(f"measured trial {trial.number} once more"),
    )


def show_front(
    study: str,
    name: str | None = None,
    *,
    remeasure: bool = False,
    devices: tuple[str, ...] = (),
    hooks: Hooks = SILENT,
) -> SearchResult:
    """The front as it stands; measured again first where that is asked for."""
    settings, folder = find_study(study, name)
    if remeasure:
        return _remeasure(settings, folder, devices or settings.devices, again=True, hooks=hooks)
    from mobilezoo.search.results import current

    return current(settings, folder)


def finetune(
    study: str,
    overrides: tuple[str, ...] = (),
    *,
    name: str | None = None,
    member: int | None = None,
    recipe: str | None = None,
    out: Path | None = None,
    hooks: Hooks = SILENT,
) -> FinetuneResult:
    """Train a tried network (default: the best) by a full recipe, export it, score and time the file."""
    settings, folder = find_study(study, name)
    from mobilezoo.search.results import current

    result = current(settings, folder)
    chosen = _member(result, member)
    assert chosen.point is not None
    target = out or folder / "finetune" / f"{chosen.number:04d}"
    model = target / f"{settings.name or 'search'}_{chosen.number:04d}.yaml"
    write_yaml(model, yaml_data(settings.space, chosen.point), [f"trial {chosen.number} of {result.name}"])
    weights = folder / "front" / model.with_suffix(".safetensors").name
    path = find_config("train", recipe or settings.final_recipe or settings.recipe)
    inherited = (f"checkpoint={weights}",) if weights.is_file() else ()
    changes = (f"model={model}", *settings.images, *inherited, *overrides)
    return finetune_candidate(settings, chosen, load_record(TrainConfig, path, changes), target, hooks=hooks)


def _member(result: SearchResult, number: int | None) -> TrialRecord:
    """The chosen network. Raises MobilezooError where there is no such finished one."""
    number = result.best if number is None else number
    if number is None:
        raise MobilezooError("no trial of this search is complete yet")
    done = {trial.number: trial for trial in result.trials if trial.state == "complete"}
    if number not in done:
        front = ", ".join(map(str, result.front))
        raise MobilezooError(f"--member {number}: no complete trial has this number; the front is {front or 'empty'}")
    return done[number]


def _line(trial: TrialRecord, best: float) -> str:
    if trial.state != "complete":
        return f"trial {trial.number}: {trial.state}: {trial.reason}"
    assert trial.latency is not None
    assert trial.reward is not None
    again = f" (same network as trial {trial.duplicate_of})" if trial.duplicate_of is not None else ""
    noisy = " noisy" if trial.latency.noisy else ""
    elsewhere = "".join(f" {estimate.ms:.3f} ms" for estimate in trial.elsewhere.values())
    return (
        f"trial {trial.number}: top-1 {trial.top1:.2f}%  {trial.latency.ms:.3f} ms{elsewhere}{noisy}  "
        f"reward {trial.reward:.4f} (best {best:.4f})  {trial.seconds:.0f} s{again}"
    )
