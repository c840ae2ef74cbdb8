"""What a config may make this program do: nothing that runs a command, unless the user said so on the command line.

Configs are shared like pictures. A value in one that would start a program (a `pipe:` address of WebDataset, an ssh
option such as ProxyCommand) is refused until `--allow-commands` is given.
"""

from contextvars import ContextVar

from mobilezoo.errors import ConfigError

_allowed: ContextVar[bool] = ContextVar("commands_allowed", default=False)


def allow_commands(allowed: bool = True) -> None:
    """Let configs run commands from here on; what `--allow-commands` calls."""
    _allowed.set(allowed)


def require_commands_allowed(what: str) -> None:
    """Raise ConfigError for a value that would run a command, unless that was allowed. `what` names key and value."""
    if not _allowed.get():
        raise ConfigError(f"{what} runs a command: pass --allow-commands if you trust its author")
