"""Permission for configs to run commands, which only the command line grants.

Configs are shared between users. A value in one that would start a program (a `pipe:` address of WebDataset, an ssh
option such as ProxyCommand) is refused until `--allow-commands` is given; so is one that imports a module of its
author's choice (`package.module:attribute`) in the config of a network from the hub.
"""

from contextvars import ContextVar
from typing import Any

from mobilezoo.errors import ConfigError, shortened
from mobilezoo.registry import is_place

_allowed: ContextVar[bool] = ContextVar("commands_allowed", default=False)


def allow_commands(allowed: bool = True) -> None:
    """Permits configs to run commands from now on; called for `--allow-commands`."""
    _allowed.set(allowed)


def require_commands_allowed(what: str, does: str = "runs a command") -> None:
    """Raises ConfigError for a value that would run a command, unless that is allowed.

    Args:
        what: key and value, for the error message.
        does: effect of the value, for the error message.
    """
    if not _allowed.get():
        raise ConfigError(f"{what} {does}: pass --allow-commands if you trust its author")


def require_no_places(data: Any, source: str) -> None:
    """Raises ConfigError for untrusted plain data that names code (`package.module:attribute`), unless it is allowed.

    Args:
        data: nested dicts and lists.
        source: their name, for error messages.
    """
    waiting = [(source, data)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, part) for part in value]
        elif isinstance(value, str) and is_place(value):
            require_commands_allowed(f"{shortened(key)} = {shortened(repr(value))}", "imports code")
