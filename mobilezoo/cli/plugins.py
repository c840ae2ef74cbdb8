"""`mobilezoo plugins`."""

from mobilezoo.cli.options import Json, print_json
from mobilezoo.cli.tables import print_table


def plugins(as_json: Json = False) -> None:
    """What installed packages add to mobilezoo, and from where; what cannot be used stands there with its reason.

    Examples:

        mobilezoo plugins
        mobilezoo plugins --json
    """
    from mobilezoo.workflows.list_plugins import plugin_rows

    rows = plugin_rows()
    if as_json:
        print_json(rows)
    elif rows:
        columns = ("plugin", "package", "kind", "name", "state", "place")
        print_table("plugins", columns, [[row[column] for column in columns] for row in rows], paths_last=True)
    else:
        print("no plugins installed: a package adds some by the entry point group mobilezoo.plugins (examples/plugin)")
