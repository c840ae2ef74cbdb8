"""Database of a study: SQLite in the run folder for one process, or a server's by URL for many workers."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.storages import RDBStorage
from optuna.study import Study
from optuna.trial import TrialState

from mobilezoo.errors import ConfigError, MobilezooError, UnknownNameError
from mobilezoo.locks import locked
from mobilezoo.search.database import (
    check_file,
    connect,
    creation_lock,
    database_errors,
    open_storage,
    without_password,
)
from mobilezoo.search.engines import make_sampler
from mobilezoo.search.kept import DATABASE

if TYPE_CHECKING:
    from mobilezoo.search.config import SearchConfig

STUDY_NAME = "search"
"""Name of the study of a search without a name."""
IDENTITY = "mobilezoo"
CONFIG = "config"
"""Study attribute: the whole config, for workers that have only the database."""
SMALLEST = "smallest"
"""Origin of the first network, which shows whether the target can be met at all."""


@contextlib.contextmanager
def only_search_in(folder: Path) -> Iterator[None]:
    """Holds the lock of a search in a folder. Raises MobilezooError if another process has it."""
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(folder / "search.lock", wait=False))
        except BlockingIOError:
            raise MobilezooError(
                f"another search is running in {str(folder)!r}: wait for it, use name=OTHER, or a database for "
                "many workers (storage=postgresql+psycopg://…)"
            ) from None
        yield


def writing_in(folder: Path) -> contextlib.AbstractContextManager[None]:
    """Holds the lock of a folder's results: workers of one folder write in turn."""
    return locked(folder / "write.lock", wait=True)


def place_of(config: "SearchConfig", folder: Path) -> str:
    """Names the study's database for messages, without a password.

    Args:
        config: the search.
        folder: run folder, which holds the database where `config.storage` is None.
    """
    return without_password(config.storage) if config.storage else str(folder / DATABASE)


def check_folder(config: "SearchConfig", folder: Path) -> None:
    """Checks that a search in a shared database does not replace the results of another search in its folder.

    Args:
        config: the search.
        folder: run folder.

    Raises:
        ConfigError: the folder holds a search with a database of its own.
    """
    if config.storage and (folder / DATABASE).exists():
        raise ConfigError(
            f"{str(folder)!r} holds a search of its own ({DATABASE}), not that in "
            f"{without_password(config.storage)!r}: use name=OTHER, --out FOLDER or another working folder"
        )


def open_study(config: "SearchConfig", folder: Path, *, lock_timeout_s: float = 30.0) -> Study:
    """Opens the search's study, created where there is none.

    Args:
        config: the search.
        folder: run folder.
        lock_timeout_s: seconds to wait for a locked SQLite file.

    Raises:
        ConfigError: the study belongs to another space, objective, recipe, latency source or version.
        MobilezooError: the database stays locked, cannot be reached or is none.
    """
    where = place_of(config, folder)
    check_folder(config, folder)
    url = _url(config, folder)
    with database_errors(where), creation_lock(url):
        storage = connect(url, _heartbeat_s(config), lock_timeout_s)
        study = _existing(config, storage, where) or _created(config, storage)
        study.set_user_attr(CONFIG, config.model_dump(mode="json", exclude={"storage"}))
        return study


def read_study(config: "SearchConfig", folder: Path) -> Study:
    """Opens the search's study for reading; workers may run meanwhile.

    Args:
        config: the search.
        folder: run folder.

    Raises:
        ConfigError: there is no such study.
        MobilezooError: the database cannot be used.
    """
    where = place_of(config, folder)
    check_file(_url(config, folder))
    with database_errors(where):
        storage = open_storage(_url(config, folder))
        name = _name(config, optuna.get_all_study_names(storage))
        try:
            return optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            raise ConfigError(f"{where!r} holds no search {name!r}") from None


def _url(config: "SearchConfig", folder: Path) -> str:
    return config.storage or f"sqlite:///{folder / DATABASE}"


def _name(config: "SearchConfig", names: list[str]) -> str:
    """Returns the name of the search's study; in a run folder that is the only study, whatever its name."""
    name = config.name or STUDY_NAME
    alone = not config.storage and len(names) == 1
    return names[0] if alone else name


def _heartbeat_s(config: "SearchConfig") -> int | None:
    return config.heartbeat_s if config.storage else None


def _existing(config: "SearchConfig", storage: RDBStorage, where: str) -> Study | None:
    names = optuna.get_all_study_names(storage)
    name = _name(config, names)
    if name not in names:
        return None
    study = optuna.load_study(
        study_name=name,
        storage=storage,
        sampler=make_sampler(config.engine, config.engine_settings, config.space.genes),
        pruner=make_pruner(config),
    )
    if IDENTITY not in study.user_attrs and name not in (STUDY_NAME, config.name):
        raise ConfigError(f"{where!r} holds the study {name!r}, which is no search of mobilezoo")
    fault = _difference(study.user_attrs.get(IDENTITY), _identity(config))
    if fault is None:
        return study
    kept = {TrialState.COMPLETE, *([TrialState.RUNNING] if config.storage else [])}
    if any(trial.state in kept for trial in study.get_trials(deepcopy=False)):
        way = "" if config.storage else ", or move the folder away"
        raise ConfigError(f"{where!r} holds a search {fault}: use name=OTHER{way}")
    optuna.delete_study(study_name=name, storage=storage)
    return None


def _created(config: "SearchConfig", storage: RDBStorage) -> Study:
    small = ["minimize"] * (len(config.criteria) - 1) if config.goal == "front" else []
    study = optuna.create_study(
        study_name=config.name or STUDY_NAME,
        storage=storage,
        directions=["maximize", *small],
        sampler=make_sampler(config.engine, config.engine_settings, config.space.genes),
        pruner=make_pruner(config),
    )
    if small:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names(list(config.criteria))
    if config.check_target:
        study.enqueue_trial(config.space.genome(config.space.smallest()), user_attrs={"origin": SMALLEST})
    study.set_user_attr(IDENTITY, _identity(config))  # last: without it, a study is begun anew
    return study


def make_pruner(config: "SearchConfig") -> optuna.pruners.BasePruner:
    """Creates Optuna's pruner of that name; `median` prunes none of the first five networks."""
    pruners: dict[str, Any] = {
        "none": optuna.pruners.NopPruner,
        "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=0),
        "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=1, reduction_factor=2),
        "sha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruner: optuna.pruners.BasePruner = pruners[config.pruner]()
    return pruner


def stored_config(url: str, name: str | None) -> tuple[str, dict[str, Any]]:
    """Reads the config of a search from its database.

    Args:
        url: the database.
        name: name of the search; None for the only one.

    Returns:
        (name, config as plain data).

    Raises:
        ConfigError: the database holds no search, or several and `name` is None.
        UnknownNameError: it holds no search of that name.
        MobilezooError: the database cannot be used.
    """
    where = without_password(url)
    check_file(url)
    storage = open_storage(url)
    with database_errors(where):
        found = {
            summary.study_name: summary.user_attrs[CONFIG]
            for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)
            if CONFIG in summary.user_attrs
        }
    if not found:
        raise ConfigError(f"{where!r} holds no search: begin one with `mobilezoo search run CONFIG storage=…`")
    if name is None and len(found) > 1:
        raise ConfigError(f"{where!r} holds the searches {', '.join(sorted(found))}: choose one with --name")
    if name is not None and name not in found:
        raise UnknownNameError("search", name, found)
    chosen = name or next(iter(found))
    return chosen, {**found[chosen], "storage": url}


def _identity(config: "SearchConfig") -> dict[str, object]:
    """Returns the settings that must stay the same for trials to be comparable."""
    return {
        "space": config.space.sha256,
        "objective": config.objective.model_dump(mode="json"),
        "goal": [config.goal, *config.further],
        "recipe": [config.recipe, *config.recipe_overrides, *_shared(config)],
        "latency": [config.target, *config.devices, *([config.estimator] if config.estimator else [])],
    }


def _shared(config: "SearchConfig") -> list[str]:
    """Returns the settings of the supernet or predictor; empty where each network is trained by itself."""
    return [] if config.accuracy == "proxy" else [config.accuracy, config.supernet.model_dump_json()]


def _difference(stored: object, wanted: dict[str, object]) -> str | None:
    """Describes the first difference of two identities; None where they are equal."""
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
