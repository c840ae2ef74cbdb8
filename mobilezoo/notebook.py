"""HTML tables of records and of lists of records, for notebooks."""

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, TypeVar

from pydantic import BaseModel

R = TypeVar("R", bound=BaseModel)
LONGEST = 200
"""Characters of a value that a cell shows."""
MOST_ITEMS = 12
"""Longer lists are shown by their length."""


class Records(list[R]):
    """A list of records that a notebook shows as one table, a row per record."""

    def _repr_html_(self) -> str:
        return rows_html(self)


def record_html(record: BaseModel) -> str:
    """Formats a record as a table of two columns, field and value; empty fields are left out."""
    rows = [(name, _text(value)) for name, value in _fields(record).items() if value not in (None, (), "", {})]
    return _table(("", type(record).__name__), rows)


def rows_html(records: Iterable[BaseModel]) -> str:
    """Formats records as a table of one row each; columns are the fields that are not empty in at least one."""
    plain = [_fields(record) for record in records]
    known = dict.fromkeys(name for row in plain for name in row)
    names = [name for name in known if any(_short(row.get(name)) for row in plain)]
    return _table(names, [[_text(row.get(name)) for name in names] for row in plain])


def _fields(record: BaseModel) -> dict[str, Any]:
    return {name: getattr(record, name) for name in type(record).model_fields}


def _short(value: Any) -> bool:
    """Whether a value is shown in a table of many records: neither empty nor nested."""
    return value not in (None, (), "", {}, False) and not isinstance(value, BaseModel | dict)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > MOST_ITEMS:
            return f"{len(value)} values"
        value = [_text(item) for item in value]
        return ", ".join(value)[:LONGEST]
    text = json.dumps(value, default=str, ensure_ascii=False) if isinstance(value, dict) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
