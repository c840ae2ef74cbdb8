"""What MkDocs adds to the pages in this folder: records as tables of keys, results of benchmarks, files of the root."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
SOURCE = "https://github.com/mobilezoo/mobilezoo/blob/main/"
OF_THE_ROOT = {"CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository's root → pages."""
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
RECORDS = {
    "train": "digits",
    "export": "default",
    "profile": "default",
    "search": "digits",
}
"""Kind of config → the YAML whose values the table shows."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for name, page in OF_THE_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=_relinked(text, Path(name))))
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        text = _relinked(path.read_text(encoding="utf-8"), path.relative_to(ROOT), up="../")
        files.append(File.generated(config, f"benchmarks/{path.name}", content=text))
    files.append(File.generated(config, "benchmarks/index.md", content=_benchmarks()))
    files.append(File.generated(config, "reference/configs.md", content=_configs()))
    files.append(File.generated(config, "reference/commands.md", content=_commands()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links that leave this folder lead to the generated page, or to the file on the web."""
    if page.file.generated_by:
        return markdown
    up = "../" * (len(Path(page.file.src_uri).parts) - 1)
    return _relinked(markdown, Path("docs", page.file.src_uri), up)


def _relinked(text: str, source: Path, up: str = "") -> str:
    """Relative links of a file of the repository as links between pages; `up` leads from its page to the top."""

    def moved(match: re.Match[str]) -> str:
        target = ((ROOT / source).parent / match[1]).resolve().relative_to(ROOT).as_posix()
        return f"]({_page(target, up)}{match[2] or ''})"

    return LINK.sub(moved, text)


def _page(target: str, up: str) -> str:
    if target.startswith("docs/"):
        return up + target.removeprefix("docs/")
    if target.startswith("benchmarks/results/") and target.endswith(".md"):
        return up + "benchmarks/" + target.rpartition("/")[2]
    return up + OF_THE_ROOT[target] if target in OF_THE_ROOT else SOURCE + target


def _benchmarks() -> str:
    paths = sorted((ROOT / "benchmarks" / "results").glob("*.md"))
    titles = [(path.name, path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")) for path in paths]
    lines = [f"- [{title}]({name})" for name, title in titles]
    return "# Benchmarks\n\nEach page is written by the script of its name in `benchmarks/`.\n\n" + "\n".join(lines)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines) + "\n\n"


def _configs() -> str:
    """The tables that `--keys` prints, and the keys of every family and kind of device."""
    from mobilezoo.workflows.schemas import schema

    text = "# Config keys\n\nAny key can be overridden on the command line: `train.epochs=5`.\n\n"
    for kind, name in RECORDS.items():
        text += f"## {kind}\n\nValues of `configs/{kind}/{name}.yaml`.\n\n"
        text += _table(("key", "value", "meaning"), _explained(kind, name))
    for kind, noun in (("model", "family"), ("device", "type")):
        text += f"## {kind}\n\n"
        known = schema(kind)
        for choice in known["properties"]["family" if kind == "model" else "type"]["examples"]:
            text += f"### {noun} `{choice}`\n\n" + _table(("key", "default", "meaning"), _keys(known["$defs"][choice]))
    return text


def _explained(kind: str, name: str) -> Iterator[tuple[str, ...]]:
    from mobilezoo.config import explained, find_config, load_record
    from mobilezoo.workflows.schemas import config_of

    for key, value, meaning in explained(load_record(config_of(kind), find_config(kind, name))):
        yield f"`{key}`", f"`{value}`" if value else "", meaning


def _keys(definition: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    import json

    for key, field in definition["properties"].items():
        default = f"`{json.dumps(field['default'])}`" if "default" in field else ""
        yield f"`{key}`", default, field.get("description", "").replace("\n", " ")


def _commands() -> str:
    """`--help` of every command."""
    import typer
    from typer.testing import CliRunner

    from mobilezoo.cli.main import app

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield words
        for name, inside in getattr(command, "commands", {}).items():
            yield from walk(inside, (*words, name))

    text, runner = "# Commands\n\n", CliRunner()
    for words in walk(typer.main.get_command(app), ()):
        shown = runner.invoke(app, [*words, "--help"], prog_name="mobilezoo", env={"COLUMNS": "100"}).output
        text += f"## {' '.join(('mobilezoo', *words))}\n\n```text\n{shown.strip()}\n```\n\n"
    return text
