"""What a config may make this program do: nothing that runs a command, unless the user said so on the command line.

Configs are shared like pictures. A value in one that would start a program (a `pipe:` address of WebDataset, an ssh
option such as ProxyCommand) is refused until `--allow-commands` is given; so is one that imports a module of its
author's choice (`package.module:attribute`) in the config of a network from the hub.
"""

from contextvars import ContextVar
from typing import Any

from mobilezoo.errors import ConfigError, shortened
from mobilezoo.registry import is_place

_allowed: ContextVar[bool] = ContextVar("commands_allowed", default=False)


def allow_commands(allowed: bool = True) -> None:
    """Let configs run commands from here on; what `--allow-commands` calls."""
    _allowed.set(allowed)


def require_commands_allowed(what: str, does: str = "runs a command") -> None:
    """Raise ConfigError for a value that would run a command, unless that was allowed. `what` names key and value."""
    if not _allowed.get():
        raise ConfigError(f"{what} {does}: pass --allow-commands if you trust its author")


def require_no_places(data: Any, source: str) -> None:
    """Raise ConfigError for plain data of others that names code (`package.module:attribute`), unless it is allowed."""
    waiting = [(source, data)]
    while waiting:
        key, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{key}.{name}", part) for name, part in value.items()]
        elif isinstance(value, list | tuple):
            waiting += [(key, part) for part in value]
        elif isinstance(value, str) and is_place(value):
            require_commands_allowed(f"{shortened(key)} = {shortened(repr(value))}", "imports code")
