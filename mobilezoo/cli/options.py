"""What all commands share: registration with teaching help, JSON output, common options."""

import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mobilezoo.errors import MobilezooError
from mobilezoo.trust import allow_commands

if TYPE_CHECKING:
    from mobilezoo.config import Record

OVERRIDE = re.compile(r"[A-Za-z_]\w*(\.\w+)*=")
SETTINGS = {"help_option_names": ["-h", "--help"]}
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only warnings.")]
AllowCommands = Annotated[
    bool,
    typer.Option(
        "--allow-commands",
        help="Let configs start programs and import code (see docs/latency.md).",
        callback=allow_commands,
    ),
]
"""Acts by itself; the command has nothing to do with its value."""
ToArg = Annotated[
    str | None,
    typer.Option("--to", help="Short for targets, the formats: onnx, litert, coreml, executorch, qnn, ncnn, coreai."),
]
Register = Callable[[Callable[..., None]], Callable[..., None]]


@dataclasses.dataclass(frozen=True)
class ConfigFlags:
    """Options of every command that reads a config; a parameter of this type becomes all of them."""

    keys: Annotated[bool, typer.Option("--keys", help="List every key with its value and meaning, and stop.")] = False
    as_json: Json = False
    allow_commands: AllowCommands = False
    quiet: Quiet = False

    def keys_printed(self, title: str, record: "Record") -> bool:
        """Print the keys of the config if --keys was given, and return whether it was: then nothing else is done.

        Args:
            title: of the table.
            record: the config with all changes.
        """
        if self.keys:
            print_keys(title, record, self.as_json)
        return self.keys


@dataclasses.dataclass(frozen=True)
class ModelConfigFlags(ConfigFlags):
    """The same for export and profile, whose words are models followed by changes of the config."""

    set_: Annotated[list[str] | None, typer.Option("--set", hidden=True)] = None
    """A former spelling of changes."""

    def split(self, words: list[str] | None, usage: str, prefix: str = "") -> tuple[list[str], tuple[str, ...]]:
        """(models, dotted changes) of the words. Raises MobilezooError for the former spelling `--set KEY=VALUE`.

        Args:
            words: arguments of the command.
            usage: the command with a model, for the error.
            prefix: begins the key in the error, `device.` where --set was of the device.
        """
        if self.set_:
            raise MobilezooError(f"--set {self.set_[0]}: write changes after the model: {usage} {prefix}{self.set_[0]}")
        return split_words(words)


def config_option(folder: str) -> Any:
    """The option --config for a folder of `configs/`."""
    return typer.Option(
        "--config", autocompletion=config_completion(folder), help=f"A YAML, or a bare name in configs/{folder}/."
    )


def config_completion(folder: str) -> Callable[[str], list[str]]:
    """What a shell offers for the bare name of a config; where none fits it goes on to files."""

    def names(incomplete: str) -> list[str]:
        from mobilezoo.config import config_names

        return [name for name in config_names(folder) if name.startswith(incomplete)]

    return names


def group(name: str, text: str) -> typer.Typer:
    """A verb with commands of its own."""
    return typer.Typer(
        name=name,
        help=text,
        no_args_is_help=True,
        rich_markup_mode=None,
        context_settings=SETTINGS,
        add_completion=False,
    )


def command(app: typer.Typer, name: str | None = None) -> Register:
    """Register a command; the examples in its docstring keep their lines."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        function = _spread(function)
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        text = "\n\n".join(f"\b\n{p}" if p.startswith("    ") else p for p in paragraphs)
        app.command(name, help=text)(function)
        return function

    return register


def _spread(function: Callable[..., None]) -> Callable[..., None]:
    """A parameter that is a dataclass of options becomes these options, and arrives as one value."""
    given = inspect.signature(function).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in given if dataclasses.is_dataclass(p.annotation)}
    if not groups:
        return function

    @functools.wraps(function)
    def called(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
        function(**values)

    spread: list[inspect.Parameter] = []
    for parameter in given:
        options = inspect.signature(groups[parameter.name]).parameters.values() if parameter.name in groups else ()
        spread += [p.replace(kind=p.KEYWORD_ONLY) for p in options or (parameter,)]
    called.__annotations__ = {p.name: p.annotation for p in spread}
    called.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    return called


def print_keys(title: str, record: "Record", as_json: bool) -> None:
    """Every key of a config, what it is set to, and what it means."""
    from mobilezoo.cli.tables import print_table
    from mobilezoo.config import explained

    rows = explained(record)
    if as_json:
        print_json([{"key": key, "value": value, "meaning": meaning} for key, value, meaning in rows])
    else:
        print_table(title, ("key", "value", "meaning"), rows)


def print_json(value: Any) -> None:
    """Plain data as JSON on stdout."""
    print(json.dumps(value, indent=2, default=str))


def split_words(words: list[str] | None) -> tuple[list[str], tuple[str, ...]]:
    """What a command is about, and the dotted changes `KEY=VALUE` among its words."""
    models: list[str] = []
    changes: list[str] = []
    for word in words or ():
        is_change = OVERRIDE.match(word) is not None and not Path(word).exists()
        (changes if is_change else models).append(word)
    return models, tuple(changes)


def separated(given: str | None) -> list[str] | None:
    """`a,b` of the command line as a list."""
    return None if given is None else [part.strip() for part in given.split(",")]


def short_forms(values: dict[str, Any]) -> tuple[str, ...]:
    """Options that stand for keys of a config, as dotted changes; those that were not given are left out.

    Text is quoted as YAML, so that it arrives as it was typed.
    """
    return tuple(f"{key}={json.dumps(value)}" for key, value in values.items() if value is not None)
