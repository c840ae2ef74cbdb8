"""`mobilezoo list` and `show`."""

from typing import Annotated

import typer

from mobilezoo.cli.options import Json, print_json


def list_(
    pattern: Annotated[str, typer.Argument(help="Shell pattern, for example 'shvit*'.")] = "*",
    as_json: Json = False,
) -> None:
    """The zoo: parameters, MACs, resolution, published top-1 with its source, licence of the official weights.

    Examples:

        mobilezoo list
        mobilezoo list 'mnasnet*' --json
    """
    from mobilezoo.workflows.list_models import model_rows, print_models

    rows = model_rows(pattern)
    print_json(rows) if as_json else print_models(rows)


def show(
    model: Annotated[str, typer.Argument(help="A zoo name, an official alias, or the path of a model YAML.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Changes such as resolution=192.")] = None,
    as_json: Json = False,
) -> None:
    """One network stage by stage: shapes, parameters and MACs.

    Examples:

        mobilezoo show mobilenetv2_ca_100
        mobilezoo show my_variant.yaml resolution=160
    """
    from mobilezoo.workflows.list_models import print_stages, stage_table

    table = stage_table(model, tuple(overrides or ()))
    print_json(table) if as_json else print_stages(table)
