"""A search's written result, as long as it is what the database holds: to look at it loads no database library."""

import hashlib
import os
from pathlib import Path

from mobilezoo.errors import MobilezooError
from mobilezoo.files import versions
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.records import SearchResult, load_search_result

DATABASE = "study.db"
HEAD_BYTES, MAGIC = 100, b"SQLite format 3\0"
LEGACY = b"\x01\x01"
"""Read and write version of a file without a write-ahead log, whose counter grows with every transaction."""
BESIDE = ("-journal", "-wal")
"""Endings of the files of a transaction that did not end."""


def basis_of(config: SearchConfig, folder: Path) -> str:
    """What a result rests on: SQLite's counter of changes, the config, the folder, this version.

    Args:
        config: of the search.
        folder: its run folder.

    Returns:
        A hash; empty where that cannot be known without the database: on a server, or in the middle of a transaction.
    """
    file = folder / DATABASE
    if config.storage or not file.is_file() or any(Path(f"{file}{end}").exists() for end in BESIDE):
        return ""
    with file.open("rb") as handle:
        head = handle.read(HEAD_BYTES)
    if head[:16] != MAGIC or head[18:20] != LEGACY:
        return ""
    changes, pages = (int.from_bytes(head[start : start + 4], "big") for start in (24, 28))
    facts = (changes, pages, versions(["mobilezoo"]), os.path.realpath(folder), config.model_dump_json())
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def kept(config: SearchConfig, folder: Path) -> SearchResult | None:
    """The result in a run folder, with the networks it names; None where the database may hold more.

    Args:
        config: of the search.
        folder: its run folder.
    """
    basis = basis_of(config, folder)
    if not basis:
        return None
    try:
        result = load_search_result(folder)
    except MobilezooError:  # the database makes it anew
        return None
    named = (*result.front_yaml, *([result.best_yaml] if result.best_yaml else []))
    return result if result.basis == basis and all((folder / name).is_file() for name in named) else None
