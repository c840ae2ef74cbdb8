"""The study's database: opening it, keeping it to one space, and what a stopped process left in it."""

import contextlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mobilezoo.errors import ConfigError, MobilezooError
from mobilezoo.search.engines import make_sampler
from mobilezoo.search.engines.base import INTERRUPTED

if TYPE_CHECKING:
    from mobilezoo.search.records import SearchConfig

STUDY_NAME = "search"
DATABASE = "study.db"
IDENTITY = "mobilezoo"
RETRIES = "retries"
MAX_RETRIES = 2
"""How often a candidate that was running when the process ended is tried again: it may be what ended it."""


@contextlib.contextmanager
def only_search_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock. Raises MobilezooError when another process has it. The lock dies with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "search.lock").open("a+") as handle:
        try:
            _lock(handle)
        except OSError:
            raise MobilezooError(
                f"another search is running in {str(folder)!r}: wait for it or use name=OTHER"
            ) from None
        yield


def _lock(handle: IO[str]) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def database_errors(where: str) -> Iterator[None]:
    """Turn the database's failures into one line."""
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause or error).splitlines()[0]
        raise MobilezooError(
            f"study database {where!r}: {reason}; finished trials are kept: run the same command again to go on"
        ) from error


def open_study(config: "SearchConfig", folder: Path, *, lock_timeout_s: float = 30.0) -> Study:
    """Create the folder's study, or load it with everything it holds.

    Raises ConfigError when the study belongs to another space, objective or version, MobilezooError when the database
    stays locked for `lock_timeout_s` or is none.
    """
    path = folder / DATABASE
    with database_errors(str(path)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                storage = optuna.storages.RDBStorage(
                    f"sqlite:///{path}", engine_kwargs={"connect_args": {"timeout": lock_timeout_s}}
                )
        except RuntimeError as error:
            raise ConfigError(f"{str(path)!r} was written by another optuna: {str(error).splitlines()[0]}") from None
        return _load_or_create(config, storage, str(path))


def _load_or_create(config: "SearchConfig", storage: optuna.storages.RDBStorage, where: str) -> Study:
    names = optuna.get_all_study_names(storage)
    if STUDY_NAME in names:
        study = optuna.load_study(
            study_name=STUDY_NAME, storage=storage, sampler=make_sampler(config, config.space.genes)
        )
        fault = _difference(study.user_attrs.get(IDENTITY), _identity(config))
        if fault is None:
            return study
        if any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
            raise ConfigError(f"{where!r} holds a search {fault}: use name=OTHER, or move the folder away")
        optuna.delete_study(study_name=STUDY_NAME, storage=storage)
    elif names:
        raise ConfigError(f"{where!r} holds the study {names[0]!r}, which is no search of mobilezoo")
    directions = ["maximize", "minimize"] if config.goal == "front" else ["maximize"]
    study = optuna.create_study(
        study_name=STUDY_NAME,
        storage=storage,
        directions=directions,
        sampler=make_sampler(config, config.space.genes),
        pruner=optuna.pruners.NopPruner(),
    )
    study.set_user_attr(IDENTITY, _identity(config))
    return study


def _identity(config: "SearchConfig") -> dict[str, object]:
    """What must stay the same for trials to be comparable."""
    return {
        "space": config.space.sha256,
        "objective": json.loads(config.objective.model_dump_json()),
        "goal": config.goal,
        "recipe": [config.recipe, *config.recipe_overrides, *_shared(config)],
        "latency": [config.target, config.device, *([config.estimator] if config.estimator else [])],
    }


def _shared(config: "SearchConfig") -> list[str]:
    """Where accuracies come from, if not from each network's own training."""
    return [] if config.accuracy == "proxy" else [config.accuracy, config.supernet.model_dump_json()]


def _difference(stored: object, wanted: dict[str, object]) -> str | None:
    if not isinstance(stored, dict) or stored.keys() != wanted.keys():
        return "of another version of mobilezoo"
    words = {
        "space": "of another space",
        "objective": "with another objective",
        "goal": "with another goal",
        "recipe": "with another training recipe",
        "latency": "with another latency source",
    }
    for key, word in words.items():
        if stored[key] != wanted[key]:
            detail = "" if key == "space" else f" ({stored[key]} then, {wanted[key]} now)"
            return word + detail
    return None


def recover(study: Study) -> int:
    """Queue again what a dead process left running; returns how many. Call only while holding the folder's lock."""
    left = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
    for trial in left:
        requeue(study, trial)
        study.tell(trial.number, state=TrialState.FAIL)
    return len(left)


def requeue(study: Study, trial: FrozenTrial | optuna.Trial) -> None:
    """Give an interrupted trial's network a new trial, unless it was interrupted too often; marks the old one."""
    attrs = trial.user_attrs
    retries = int(attrs.get(RETRIES, 0))
    trial_id = trial._trial_id
    if retries >= MAX_RETRIES:
        study._storage.set_trial_user_attr(trial_id, "reason", f"the process ended {retries + 1} times in this trial")
        return
    study._storage.set_trial_user_attr(trial_id, INTERRUPTED, True)
    if "genome" in attrs:
        kept = {key: attrs[key] for key in ("origin",) if key in attrs}
        study.enqueue_trial(dict(trial.params), user_attrs={RETRIES: retries + 1, **kept})
