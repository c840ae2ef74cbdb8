"""The commands of `mobilezoo search`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mobilezoo.cli.options import (
    SETTINGS,
    AllowCommands,
    ConfigFlags,
    Json,
    Quiet,
    command,
    config_completion,
    print_json,
)
from mobilezoo.cli.progress import shown


class _RunByDefault(TyperGroup):
    """`mobilezoo search CONFIG` stands for `mobilezoo search run CONFIG`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {*self.commands, *SETTINGS["help_option_names"]}
        return super().parse_args(ctx, ["run", *args] if args and args[0] not in known else args)


app = typer.Typer(
    name="search",
    cls=_RunByDefault,
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=SETTINGS,
    add_completion=False,
    help="""Latency-aware architecture search: from a space and a device to a front of trained, exported models.

\b
    mobilezoo search run digits                     try networks; stop and go on as you like
    mobilezoo search status runs/search-digits      how far it is, and who works on it
    mobilezoo search front runs/search-digits       the networks that no other dominates
    mobilezoo search finetune runs/search-digits    train the best one in full, export and time it
    mobilezoo search report runs/search-digits      one page with everything

STUDY is the run folder of a search, or its database's URL (with --name where that holds several).
""",
)

Study = Annotated[str, typer.Argument(help="Run folder of a search, or the URL of its database.")]
Name = Annotated[str | None, typer.Option("--name", help="Which search, where a database holds several.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder; default runs/search-NAME.")]


@command(app)
def run(
    config: Annotated[
        str,
        typer.Argument(
            autocompletion=config_completion("search"),
            help="A search: path of a YAML, or a bare name in configs/search/.",
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Dotted changes of it, or of its recipe: trials=20 engine=tpe train.epochs=3"),
    ] = None,
    out: Out = None,
    *,
    flags: ConfigFlags,
) -> None:
    """Try networks until the study holds `trials` of them, then measure the front once more.

    Each candidate is exported, timed and trained; the study goes on by itself when the command is run again.

    Examples:

        mobilezoo search run digits
        mobilezoo search run digits --keys
        mobilezoo search run digits trials=20 engine=evolution
        mobilezoo search run mnasnet data.source=folder:~/imagenet devices=android
        mobilezoo search run digits goal=front devices=host,cortex_a76 engine=nsga2 further=size_mb
        mobilezoo search run mnasnet data.source=folder:~/imagenet storage=postgresql+psycopg://me@server/searches
        mobilezoo search run mnasnet data.source=folder:~/imagenet devices=android on_device_lost=wait
        mobilezoo train digits model=runs/search-digits/digits_best.yaml
    """
    if flags.keys:
        from mobilezoo.search.networks import load_search_config

        flags.keys_printed(f"search {config}", load_search_config(config, tuple(overrides or ())))
        return
    from mobilezoo.cli.search_tables import print_front
    from mobilezoo.workflows import search as workflow

    with shown(flags.quiet, lines=not flags.quiet) as hooks:
        result = workflow.search(config, tuple(overrides or ()), out=out, hooks=hooks)
    print_json(result.model_dump()) if flags.as_json else print_front(result)


@command(app)
def worker(
    study: Study,
    name: Name = None,
    out: Out = None,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Work on a search that `search run` began, on this or any other machine, until all its trials are finished.

    Workers meet in the database. One that falls silent (heartbeat_s) counts as dead, and its network runs again.

    Examples:

        mobilezoo search worker postgresql+psycopg://me@server/searches
        mobilezoo search worker postgresql+psycopg://me@server/searches --name mnasnet --out /tmp/mnasnet
    """
    from mobilezoo.cli.search_tables import print_front
    from mobilezoo.workflows import search as workflow

    with shown(quiet, lines=not quiet) as hooks:
        result = workflow.work(study, name, out=out, hooks=hooks)
    print_json(result.model_dump()) if as_json else print_front(result)


@command(app)
def status(study: Study, name: Name = None, as_json: Json = False) -> None:
    """How far a search is, its best network so far, and who works on what; safe while it runs.

    Examples:

        mobilezoo search status runs/search-digits
        mobilezoo search status postgresql+psycopg://me@server/searches --name mnasnet --json
    """
    from mobilezoo.cli.search_tables import print_status
    from mobilezoo.workflows.search import find_study

    settings, folder = find_study(study, name)
    from mobilezoo.search.results import search_status

    found = search_status(settings, folder)
    print_json(found.model_dump()) if as_json else print_status(found)


@command(app)
def front(
    study: Study,
    name: Name = None,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Measure its networks once more first.")] = False,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            autocompletion=config_completion("devices"),
            help="With --remeasure: on these instead; may be repeated.",
        ),
    ] = None,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """The networks that no other dominates, fastest first; second measurements stand beside the first.

    Examples:

        mobilezoo search front runs/search-digits
        mobilezoo search front runs/search-mnasnet --remeasure --device android
    """
    from mobilezoo.cli.search_tables import print_front
    from mobilezoo.workflows.search import show_front

    with shown(quiet or not remeasure) as hooks:
        result = show_front(study, name, remeasure=remeasure, devices=tuple(device or ()), hooks=hooks)
    print_json(result.model_dump()) if as_json else print_front(result)


@command(app)
def finetune(
    study: Study,
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes of the recipe: train.epochs=50")] = None,
    name: Name = None,
    member: Annotated[int | None, typer.Option("--member", min=0, help="Trial number; default: the best.")] = None,
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="Training config; default: the search's final_recipe or recipe.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder; default STUDY/finetune/NUMBER.")] = None,
    allow_commands: AllowCommands = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network of the search in full, export it, and score and time the file. Run again, it goes on.

    Weights that the network inherits from a supernet are where it begins.

    Examples:

        mobilezoo search finetune runs/search-digits
        mobilezoo search finetune runs/search-digits train.epochs=50 --member 3
        mobilezoo search finetune runs/search-mnasnet --recipe shvit
    """
    from mobilezoo.cli.search_tables import print_finetune
    from mobilezoo.workflows import search as searching

    changes = tuple(overrides or ())
    with shown(quiet) as hooks:
        done = searching.finetune(study, changes, name=name, member=member, recipe=recipe, out=out, hooks=hooks)
    print_json(done.model_dump()) if as_json else print_finetune(done)


@command(app)
def report(
    study: Study,
    name: Name = None,
    out: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
) -> None:
    """One page: the front, rewards, what mattered, each front member as a picture; also while the search runs.

    Example:

        mobilezoo search report runs/search-digits --out digits.html
    """
    from mobilezoo.workflows.report import write_report
    from mobilezoo.workflows.search import find_study, show_front

    _, folder = find_study(study, name)
    show_front(study, name)  # brings search.json up to date
    print(write_report([folder], out))
