"""Markdown from strings that nobody checked: no tag, link, image, formula or table cell comes out of them."""

import re
from collections.abc import Iterable, Sequence

from mobilezoo.errors import printable, shortened

SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
"""ASCII punctuation that means something to CommonMark, GitHub's tables, or formulas, wherever it stands in a line."""
AUTOLINK = re.compile(r"(?<=:)(?=//)|(?<=\bwww)(?=\.)", re.IGNORECASE)
"""Places inside what GitHub's Markdown makes a link of without being asked."""
ADDRESS = re.compile(r"https://[A-Za-z0-9._~/?#&=%:@+,-]+")
LONGEST = 400
"""Characters of a foreign string that are shown."""


def one_line(text: str) -> str:
    """Joins lines and replaces control characters and marks of direction, which may hide or reorder text."""
    return printable(" ".join(shortened(text, LONGEST).split()))


def plain(text: object) -> str:
    """Escapes a value as text of one line."""
    line = one_line(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return AUTOLINK.sub(r"\\", SPECIAL.sub(r"\\\1", line))


def link(address: str, text: str | None = None) -> str:
    """A link to an https address; anything else is shown as text.

    Args:
        address: where it leads.
        text: what is shown; None shows the address.
    """
    if not ADDRESS.fullmatch(address):
        return plain(address) if text is None else plain(text)
    return f"[{plain(text or address)}](<{address}>)"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; cells are escaped unless they are `Raw`.

    Args:
        head: titles of the columns; those that end with a unit or `%` in parentheses are aligned to the right.
        rows: as many cells as titles each.
    """
    marks = ["--:" if title.endswith(")") else "---" for title in head]
    lines = [head, marks, *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


class Raw(str):
    """Text that is Markdown already."""


def cell(value: object) -> str:
    """A value in a table; None is empty."""
    return value if isinstance(value, Raw) else "" if value is None else plain(value)


def code(language: str, text: str) -> str:
    """A fenced block that its own text cannot end.

    Args:
        language: of the highlighter.
        text: the code.
    """
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def literal(text: str) -> str:
    """A string as a literal of Python, in printable ASCII."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'
