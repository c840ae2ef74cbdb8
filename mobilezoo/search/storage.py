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

from mobilezoo.errors import ConfigError, MissingToolError, MobilezooError, UnknownNameError, first_line
from mobilezoo.locks import locked
from mobilezoo.search.engines import make_sampler

if TYPE_CHECKING:
    from mobilezoo.search.records import SearchConfig

STUDY_NAME = "search"
"""Name of the study of a search without a name."""
DATABASE = "study.db"
IDENTITY = "mobilezoo"
CONFIG = "config"
"""Study attribute: the whole config, for workers that have only the database."""
SMALLEST = "smallest"
"""Origin of the first network, which shows whether the target can be met at all."""
SILENT_BEATS = 3
"""A worker that missed this many heartbeats counts as dead."""
TURN = 0x6D6F62696C657A6F
"""Key of the advisory lock under which tables and studies are created in a PostgreSQL database."""
TURN_S = 60
"""Timeout of that lock in seconds; creating takes about one."""


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


@contextlib.contextmanager
def database_errors(where: str) -> Iterator[None]:
    """Turns errors of the database `where` into a MobilezooError of one line."""
    import sqlalchemy.exc

    try:
        yield
    except (optuna.exceptions.StorageInternalError, sqlalchemy.exc.SQLAlchemyError) as error:
        cause = error.__cause__ if isinstance(error, optuna.exceptions.StorageInternalError) else error
        reason = first_line(str(getattr(cause, "orig", None) or cause or error))
        raise MobilezooError(
            f"study database {where!r}: {reason}; finished trials are kept: run the same command again to go on"
        ) from error


class _Storage(RDBStorage):
    """Optuna's storage, whose heartbeats ignore a lost database: the trial itself then fails when it writes."""

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(MobilezooError), database_errors(""):
            super().record_heartbeat(trial_id)


def place_of(config: "SearchConfig", folder: Path) -> str:
    """Names the study's database for messages, without a password.

    Args:
        config: the search.
        folder: run folder, which holds the database where `config.storage` is None.
    """
    return shown(config.storage) if config.storage else str(folder / DATABASE)


def shown(url: str) -> str:
    """Hides the password of a database URL. Raises ConfigError for no URL, or an unknown kind of database."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
        parsed.get_dialect()
        return parsed.render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        raise ConfigError(
            f"storage = {url!r}: expected a database URL such as postgresql+psycopg://USER@HOST/DATABASE"
        ) from None


@contextlib.contextmanager
def _usable(url: str) -> Iterator[None]:
    """Turns errors of connecting into one line: a missing driver, tables of another version of Optuna."""
    where = shown(url)
    try:
        yield
    except ImportError as error:
        if url.startswith("postgresql+psycopg:"):
            raise MissingToolError("psycopg", "postgres") from None
        module = getattr(error.__cause__ or error.__context__ or error, "name", None)
        raise ConfigError(
            f"storage = {where!r}: its driver {module or ''} is not installed; "
            "for PostgreSQL write postgresql+psycopg://…"
        ) from None
    except RuntimeError as error:
        raise ConfigError(f"{where!r} was written by another optuna: {first_line(error)}") from None


@contextlib.contextmanager
def _in_turns(url: str) -> Iterator[None]:
    """Holds an advisory lock of a PostgreSQL database, so that one process at a time creates tables and studies.

    The lock ends with its connection. An SQLite file needs none: its writer holds the folder's lock.
    """
    from sqlalchemy import create_engine, text
    from sqlalchemy.pool import NullPool

    if not url.startswith("postgresql"):
        yield
        return
    with _usable(url):
        engine = create_engine(url, poolclass=NullPool, connect_args=_connect_args(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"SET lock_timeout = '{TURN_S}s'"))
        connection.execute(text(f"SELECT pg_advisory_lock({TURN})"))
        yield


def open_storage(url: str) -> RDBStorage:
    """Connects to a database and creates Optuna's tables where there are none.

    Raises:
        MobilezooError: the database cannot be reached or is none.
        MissingToolError: its driver is not installed.
    """
    with database_errors(shown(url)), _in_turns(url):
        return _connected(url)


def _connected(url: str, heartbeat_s: int | None = None, lock_timeout_s: float = 30.0) -> RDBStorage:
    alive = {} if url.startswith("sqlite:") else {"pool_pre_ping": True}
    with warnings.catch_warnings(), _usable(url):
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return _Storage(
            url,
            engine_kwargs={"connect_args": _connect_args(url, lock_timeout_s), **alive},
            heartbeat_interval=heartbeat_s,
            grace_period=heartbeat_s * SILENT_BEATS if heartbeat_s else None,
        )


def _connect_args(url: str, lock_timeout_s: float = 30.0) -> dict[str, Any]:
    if url.startswith("sqlite:"):
        return {"timeout": lock_timeout_s}
    return {"connect_timeout": 10} if url.startswith("postgresql") else {}


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
            f"{str(folder)!r} holds a search of its own ({DATABASE}), not that in {shown(config.storage)!r}: use "
            "name=OTHER, --out FOLDER or another working folder"
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
    with database_errors(where), _in_turns(url):
        storage = _connected(url, _heartbeat_s(config), lock_timeout_s)
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
    _check_file(_url(config, folder))
    with database_errors(where):
        storage = open_storage(_url(config, folder))
        name = _name(config, optuna.get_all_study_names(storage))
        try:
            return optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            raise ConfigError(f"{where!r} holds no search {name!r}") from None


def _url(config: "SearchConfig", folder: Path) -> str:
    return config.storage or f"sqlite:///{folder / DATABASE}"


def _check_file(url: str) -> None:
    """Raises ConfigError for a missing SQLite file, which connecting would create."""
    file = url.removeprefix("sqlite:///")
    if file != url and not Path(file).is_file():
        raise ConfigError(f"study database {file!r} not found: begin with `mobilezoo search run`")


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
    where = shown(url)
    _check_file(url)
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
