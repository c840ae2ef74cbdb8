"""`mobilezoo schema`."""

from typing import Annotated

import typer

from mobilezoo.cli.options import print_json


def schema(
    kind: Annotated[str, typer.Argument(help="Kind of YAML: model, train, export, profile, search or device.")],
) -> None:
    """The JSON schema of a kind of YAML; editors complete and check keys with it.

    The shipped YAMLs name theirs in the first line. For one of your own:

        mobilezoo schema train > train.json

    and as the first line of the YAML: # yaml-language-server: $schema=train.json

    Examples:

        mobilezoo schema train
        mobilezoo schema model > model.json
    """
    from mobilezoo.workflows.schemas import schema as schema_of

    print_json(schema_of(kind))
