"""Documentation names what exists: files, links, commands and their options, keys of configs."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import typer

import mobilezoo
from mobilezoo.cli.main import app
from mobilezoo.reading import parse_yaml, read_yaml
from mobilezoo.workflows.schemas import schema

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
SECTION = re.compile(r"^### (.+?)\n(.*?)(?=^##|\Z)", re.M | re.S)
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES_TO_TOUCH = {
    "A family": (2, 1),
    "An export target": (1, 2),
    "A device": (3, 1),
    "A search engine": (1, 1),
    "A graph pass": (1, 2),
    "A data source": (0, 2),
    "An attention layer": (1, 1),
}
"""What is added → (new files, files that change)."""


def named_files(text: str) -> tuple[list[str], list[str]]:
    """(new files, files that change) in the list of a section."""
    found = [name for line in text.splitlines() if line.startswith("- ") for name in re.findall(r"`(\w+/[^`]+)`", line)]
    return [name for name in found if "NAME" in name], [name for name in found if "NAME" not in name]


@pytest.mark.parametrize("thing", FILES_TO_TOUCH)
def test_how_to_add_names_files_that_exist_and_no_more_than_promised(thing: str) -> None:
    new, changed = named_files(dict(SECTION.findall(CONTRIBUTING))[thing])
    assert (len(new), len(changed)) == FILES_TO_TOUCH[thing]
    assert all((ROOT / name).is_file() for name in changed), changed
    assert all((ROOT / name).parent.is_dir() for name in new), new


def test_how_to_add_names_the_table_that_gets_a_line() -> None:
    for path, table in re.findall(r"one line: `([^`]+)` \(`(\w+)`\)", CONTRIBUTING):
        assert re.search(rf"^{table}\b.* = ", (ROOT / path).read_text(encoding="utf-8"), re.M), (path, table)


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/architecture.md"])
def test_named_modules_exist(page: str) -> None:
    named = re.findall(r"`((?:mobilezoo|export|latency|tests)/[\w/.]+)`", (ROOT / page).read_text(encoding="utf-8"))
    assert named
    assert not [name for name in named if not (ROOT / name).exists()]


def test_the_citation_has_the_version() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    assert citation["version"] == mobilezoo.__version__
    assert citation["license"] == "Apache-2.0"


@pytest.mark.parametrize("page", NAMES)
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    generated = {"contributing.md", "security.md", "changelog.md", "configs.md", "commands.md", "python.md"}
    missing = [link for link in LINK.findall(text) if not ((ROOT / page).parent / link).exists()]
    assert not [link for link in missing if Path(link).name not in generated]


@pytest.mark.parametrize("workflow", ["ci.yml", "docs.yml"])
def test_workflows_run_targets_of_the_makefile(workflow: str) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    jobs = read_yaml(ROOT / ".github" / "workflows" / workflow)["jobs"]
    run = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    called = {words[1] for line in run if (words := line.split())[0] == "make"}
    assert called
    assert called <= targets


def commands_of(page: str) -> Iterator[list[str]]:
    """Words of every `mobilezoo` command in a page's blocks of shell."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("\\\n", " ")
    for block in re.findall(r"^```(?:sh|bash)?\n(.*?)^```", text, re.M | re.S):
        for line in block.splitlines():
            if (found := re.match(r"(?:\.venv/bin/|torchrun .*-m )?mobilezoo (.*)", line.strip())) is not None:
                yield shlex.split(found[1].partition("|")[0].partition(" > ")[0], comments=True)


def unknown_words(words: list[str]) -> list[str]:
    """Commands and options among the words that `mobilezoo` does not have."""
    command: Any = typer.main.get_command(app)
    options = {"--help", "-h", *options_of(command)}
    while (commands := getattr(command, "commands", {})) and words and not words[0].startswith("-"):
        if words[0] not in commands:
            return [] if command.name == "search" else [words[0]]  # `search CONFIG` is `search run CONFIG`
        command, words = commands[words[0]], words[1:]
        options |= options_of(command)
    given = [word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1]
    return [word for word in given if word not in options]


def options_of(command: Any) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


@pytest.mark.parametrize("page", NAMES)
def test_commands_and_options_exist(page: str) -> None:
    assert not [(words, bad) for words in commands_of(page) if (bad := unknown_words(words))]


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    assert unknown_words(["trian", "digits"]) == ["trian"]
    assert unknown_words(["train", "digits", "--epochs", "5"]) == ["--epochs"]
    assert sum(1 for page in NAMES for _ in commands_of(page)) > 50


def test_the_tutorial_s_search_fits_its_schema() -> None:
    import jsonschema

    text = (ROOT / "docs/tutorials/search.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    jsonschema.validate(parse_yaml(block, "tutorial"), schema("search"))


class Targets(HTMLParser):
    """Where a page leads, and where one can land in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {value for key in ("id", "name") if (value := given.get(key))}
        self.links += [value for key in ("href", "src") if (value := given.get(key))]


def dead_links(site: Path) -> list[str]:
    """Internal links of a built site that lead to no file, or to no place in it."""
    pages = {path: Targets(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        for link in page.links if path.name != "404.html" else ():  # its links are absolute
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            landing = pages.get(target)
            if not target.is_file() or (parts.fragment and landing and unquote(parts.fragment) not in landing.anchors):
                dead.append(f"{path.relative_to(site)}: {link}")
    return dead


@pytest.mark.nightly
def test_the_site_builds_without_warnings_and_has_no_dead_links(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="no MkDocs: pip install 'mobilezoo[docs]'")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tutorials" / "train" / "index.html").is_file()
    assert not dead_links(tmp_path)
    documented = Targets((tmp_path / "reference" / "python" / "index.html").read_text(encoding="utf-8")).anchors
    assert set(mobilezoo.__all__) <= {name.rpartition(".")[2] for name in documented if name.startswith("mobilezoo.")}
