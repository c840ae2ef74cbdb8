"""What all commands share: registration with teaching help, JSON output, common options."""

import inspect
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from mobilezoo.config import Record

SETTINGS = {"help_option_names": ["-h", "--help"]}
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines instead of a table.")]
Keys = Annotated[bool, typer.Option("--keys", help="List every key with its value and meaning, and stop.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Register = Callable[[Callable[..., None]], Callable[..., None]]


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
        paragraphs = inspect.cleandoc(function.__doc__ or "").split("\n\n")
        text = "\n\n".join(f"\b\n{p}" if p.startswith("    ") else p for p in paragraphs)
        app.command(name, help=text)(function)
        return function

    return register


def print_keys(title: str, record: "Record", as_json: bool) -> None:
    """Every key of a config, what it is set to, and what it means."""
    from mobilezoo.config import explained
    from mobilezoo.verbs.tables import print_table

    rows = explained(record)
    if as_json:
        print_json([{"key": key, "value": value, "meaning": meaning} for key, value, meaning in rows])
    else:
        print_table(title, ("key", "value", "meaning"), rows)


def print_json(value: Any) -> None:
    """Plain data as JSON on stdout."""
    print(json.dumps(value, indent=2, default=str))
