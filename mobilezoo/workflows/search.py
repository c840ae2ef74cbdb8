"""`mobilezoo search`: candidates trained by the trainer, exported and timed, one study."""

from pathlib import Path

from mobilezoo.config import find_config, load_record, write_yaml
from mobilezoo.errors import ConfigError, MobilezooError, existing_folder, require, writable_place
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.finetune_result import FinetuneResult
from mobilezoo.search.kept import kept
from mobilezoo.search.networks import load_search_config, yaml_data
from mobilezoo.search.records import CONFIG_NAME, SearchResult, TrialRecord
from mobilezoo.train.config import TrainConfig
from mobilezoo.workflows.candidate_evaluator import CandidateEvaluator
from mobilezoo.workflows.finetune import finetune_candidate
from mobilezoo.workflows.hooks import SILENT, Hooks


def search(
    config: str | SearchConfig, overrides: tuple[str, ...] = (), *, out: Path | None = None, hooks: Hooks = SILENT
) -> SearchResult:
    """Begin or resume the study of a config, then measure its front once more.

    Args:
        config: path or bare name in configs/search/, or the record itself.
        overrides: dotted `KEY=VALUE` changes of a named config.
        out: run folder; None takes runs/search-NAME.
        hooks: receives a line per trial and progress.

    Raises:
        MobilezooError: recipe, device or estimator cannot be used, or the study on disk is another one.
    """
    require("optuna", "search")
    settings = config if isinstance(config, SearchConfig) else load_search_config(config, overrides)
    folder = out or Path("runs") / f"search-{settings.name}"
    result = _work(settings, folder, hooks)
    devices = _measured_devices(settings, result) if settings.remeasure else ()
    return _remeasure(settings, folder, devices, again=False, hooks=hooks) if devices else result


def work(study: str, name: str | None = None, *, out: Path | None = None, hooks: Hooks = SILENT) -> SearchResult:
    """Join a search until all its trials are finished.

    Args:
        study: its run folder or database URL.
        name: the study in a database that holds several.
        out: run folder; None takes the given one, or runs/search-NAME.
        hooks: receives a line per trial and progress.
    """
    settings, folder = find_study(study, name, out)
    return _work(settings, folder, hooks)


def find_study(study: str, name: str | None = None, out: Path | None = None) -> tuple[SearchConfig, Path]:
    """(config, run folder) of a search.

    Args:
        study: its run folder or database URL.
        name: the study in a database that holds several.
        out: replaces the run folder.

    Raises:
        ConfigError: the folder holds no search.
    """
    require("optuna", "search")
    if "://" in study:
        from mobilezoo.search.storage import stored_config

        name, data = stored_config(study, name)
        return SearchConfig.parse(data, f"search {name}"), out or Path("runs") / f"search-{name}"
    folder = existing_folder(study, "run folder of a search")
    if not (folder / CONFIG_NAME).is_file():
        raise ConfigError(f"{study!r} holds no {CONFIG_NAME}: is it the folder of a search?")
    return load_record(SearchConfig, folder / CONFIG_NAME), out or folder


def _work(settings: SearchConfig, folder: Path, hooks: Hooks) -> SearchResult:
    """Run trials until all are finished; every one is a message."""
    from mobilezoo.search import study
    from mobilezoo.search.supernet.create import create_accuracy
    from mobilezoo.workflows.estimate_latency import is_table
    from mobilezoo_latency import load_device

    # What is missing or unknown is an error before anything is exported or trained.
    writable_place(folder, "--out", folder=True)
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
    hooks.on_status("measuring the front once more")
    return remeasure(
        settings,
        lambda candidate: evaluator.remeasure(candidate, devices),
        folder,
        again=again,
        on_member=lambda trial: hooks.on_status(f"measured trial {trial.number} once more"),
    )


def show_front(
    study: str,
    name: str | None = None,
    *,
    remeasure: bool = False,
    devices: tuple[str, ...] = (),
    hooks: Hooks = SILENT,
) -> SearchResult:
    """The Pareto front of the trials finished so far.

    Args:
        study: run folder or database URL.
        name: the study in a database that holds several.
        remeasure: measure the front again first.
        devices: where to measure; () takes the config's.
        hooks: receives the step under way.
    """
    settings, folder = find_study(study, name)
    if remeasure:
        return _remeasure(settings, folder, devices or settings.devices, again=True, hooks=hooks)
    if (result := kept(settings, folder)) is not None:
        return result
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
    """Train a tried network by a full recipe, export it, score and time the file.

    Args:
        study: run folder or database URL.
        overrides: dotted `KEY=VALUE` changes of the recipe.
        name: the study in a database that holds several.
        member: number of a complete trial; None takes the best.
        recipe: name or path of the recipe; None takes the search's final one, else its own.
        out: folder; None takes finetune/NUMBER in the run folder.
        hooks: receives messages and progress.

    Raises:
        MobilezooError: the search has no such complete trial.
    """
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
