"""The templates of Android and iOS kits are Kotlin and Swift by grammar: no compiler is needed, nor names resolved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mobilezoo.workflows.kit_kinds import TEMPLATES

tree_sitter = pytest.importorskip("tree_sitter")
LANGUAGES = {".kt": "tree_sitter_kotlin", ".swift": "tree_sitter_swift"}
FILES = sorted(path for kind in ("android", "ios") for path in (TEMPLATES / kind).iterdir() if path.suffix in LANGUAGES)


def faults(suffix: str, text: bytes) -> list[tuple[int, str]]:
    """(line, kind) of what the grammar does not know."""
    grammar = pytest.importorskip(LANGUAGES[suffix])
    tree = tree_sitter.Parser(tree_sitter.Language(grammar.language())).parse(text)
    return [(node.start_point[0] + 1, node.type) for node in _all(tree.root_node) if node.is_error or node.is_missing]


def _all(node: Any) -> Iterator[Any]:
    yield node
    for child in node.children:
        yield from _all(child)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_template_has_the_grammar_of_its_language(path: Path) -> None:
    text = path.read_bytes()
    assert not faults(path.suffix, text)
    assert faults(path.suffix, text.replace(b"}", b"", 1) if b"}" in text else text + b")"), "a lost brace is found"
