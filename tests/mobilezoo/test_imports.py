"""Packages import in one direction, and the CLI's help imports nothing heavy."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

from mobilezoo.search.config import SearchConfig
from mobilezoo.search.records import Figures, LatencyEstimate
from mobilezoo.search.study import search

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {
    "layers": ("mobilezoo/layers", 1),
    "models": ("mobilezoo/models", 2),
    "data": ("mobilezoo/data", 2),
    "dense": ("mobilezoo/dense", 2),
    "train": ("mobilezoo/train", 3),
    "export": ("export/mobilezoo_export", 4),
    "latency": ("latency/mobilezoo_latency", 5),
    "search": ("mobilezoo/search", 6),
    "report": ("mobilezoo/report", 7),
    "workflows": ("mobilezoo/workflows", 8),
    "cli": ("mobilezoo/cli", 9),
}
PLACE = re.compile(r"mobilezoo(_export|_latency)?(\.\w+)+(:\w+)?")
PREFIX = {"mobilezoo_export": "export", "mobilezoo_latency": "latency"}
FORBIDDEN = {"search": {"export", "latency"}}


def imported(file: Path) -> set[str]:
    """Our packages that a file imports, at any depth, or names as a place (`package.module:attribute`)."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and PLACE.fullmatch(node.value):
            names.add(node.value.partition(":")[0])
    ours = {PREFIX[n.split(".")[0]] for n in names if n.split(".")[0] in PREFIX}
    return ours | {n.split(".")[1] for n in names if n.startswith("mobilezoo.") and n.split(".")[1] in LAYERS}


@pytest.mark.parametrize("package", LAYERS)
def test_no_package_imports_one_above_it(package: str) -> None:
    folder, level = LAYERS[package]
    for file in (ROOT / folder).rglob("*.py"):
        for other in imported(file) - {package}:
            assert LAYERS[other][1] <= level, f"{file.relative_to(ROOT)} imports {other}"
            assert other not in FORBIDDEN.get(package, set()), f"{file.relative_to(ROOT)} imports {other}"


def modules() -> dict[str, Path]:
    """Every module of the three packages."""
    found = {}
    for folder in (ROOT, ROOT / "export", ROOT / "latency"):
        for file in folder.glob("mobilezoo*/**/*.py"):
            name = ".".join(file.relative_to(folder).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = file
    return found


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below this one, functions included; what only a type checker reads is left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from statements(child)


def imports_of(text: str, known: Container[str]) -> set[str]:
    """The known modules that a file imports, at its top or inside a function."""
    names: set[str] = set()
    for node in statements(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for inner in (f"{node.module}.{alias.name}" for alias in node.names):
                names.add(inner if inner in known else node.module)
    return {name for name in names if name in known}


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import one another: what is left once modules without open imports are taken away."""
    left = {name: set(targets) - {name} for name, targets in graph.items()}
    while True:
        imported_by_none = left.keys() - {target for targets in left.values() for target in targets}
        done = {name for name, targets in left.items() if not targets & left.keys()} | imported_by_none
        if not done:
            return [sorted([name, *(targets & left.keys())]) for name, targets in sorted(left.items())]
        left = {name: targets & left.keys() for name, targets in left.items() if name not in done}


def test_no_modules_import_one_another() -> None:
    """Also inside functions, where a circle works and still shows two modules that are one."""
    known = modules()
    assert circles({n: imports_of(f.read_text(encoding="utf-8"), known) for n, f in known.items()}) == []


def test_a_circle_is_found() -> None:
    text = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import c\ndef f():\n    from p import b\n"
    assert imports_of(text, {"p.b", "c"}) == {"p.b"}
    assert circles({"top": {"a"}, "a": {"b"}, "b": {"a", "leaf"}, "leaf": set()}) == [["a", "b"], ["a", "b"]]
    assert circles({"top": {"a"}, "a": {"leaf"}, "leaf": set()}) == []


MANY_PARAMETERS: set[str] = set()
"""Functions that still take more than seven; the list may only become shorter."""


def functions(file: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    return [node for node in tree if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many a function takes, `self` and `cls` left out, `*args` and `**kwargs` counted as one each."""
    args = function.args
    named = [a.arg for a in (*args.posonlyargs, *args.args, *args.kwonlyargs) if a.arg not in ("self", "cls")]
    return len(named) + sum(a is not None for a in (args.vararg, args.kwarg))


def test_no_function_outside_the_command_line_takes_more_than_seven_parameters() -> None:
    files = [f for folder in ("mobilezoo", "export", "latency") for f in (ROOT / folder).rglob("*.py")]
    files = [f for f in files if ROOT / "mobilezoo" / "cli" not in f.parents]
    many = {f"{f.relative_to(ROOT)}:{one.name}" for f in files for one in functions(f) if parameters(one) > 7}
    assert many == MANY_PARAMETERS


def test_workflows_neither_print_nor_know_the_command_line() -> None:
    for file in (ROOT / "mobilezoo" / "workflows").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
        assert not {name.split(".")[0] for name in names} & {"typer", "click", "rich"}, file.name
        assert not {name for name in names if name.startswith("mobilezoo.cli")}, file.name
        calls = [node.func for node in nodes if isinstance(node, ast.Call)]
        assert not [call for call in calls if isinstance(call, ast.Name) and call.id == "print"], file.name


def after(*commands: tuple[str, ...], cwd: Path | None = None) -> tuple[list[set[str]], str]:
    """(modules imported by the end of each command, what they printed), all in one fresh interpreter."""
    code = (
        "import json, sys\nfrom mobilezoo.cli.main import main\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    try:\n        main(command)\n    except SystemExit as done:\n        assert not done.code, command\n"
        "    print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})), file=sys.stderr)\n"
    )
    run = [sys.executable, "-c", code, json.dumps(commands)]
    done = subprocess.run(run, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return [set(json.loads(line)) for line in done.stderr.splitlines()], done.stdout


def test_help_and_the_list_import_nothing_heavy() -> None:
    (of_help, of_list), printed = after(("--help",), ("list",))
    heavy = {"torch", "timm", "optuna", "plotly", "sklearn", "scipy", "matplotlib", "onnx", "pandas"}
    assert not (heavy | {"numpy"}) & of_help
    assert not heavy & of_list
    assert "demo" in printed


@pytest.mark.slow
def test_a_look_at_a_search_imports_no_torch(tmp_path: Path) -> None:
    """A status that takes seconds of imports is not asked for twice."""
    stage = {"stride": 2, "block": ["ir"], "width": [8, 16], "kernel": [3, 5], "expansion": [2, 3], "depth": [1, 2]}
    data = {"space": {"resolution": [32], "stages": [stage]}, "objective": {"target_ms": 9}, "recipe": "digits"}
    config = SearchConfig.parse({**data, "engine": "random", "trials": 12, "name": "toy"})
    figures = Figures(latency={"host": LatencyEstimate(ms=1, source="a formula")})
    search(config, lambda candidate: 50.0 + candidate.number, lambda candidate: figures, tmp_path)
    looks = [("search", verb, str(tmp_path)) for verb in ("front", "report", "status")]
    (front, report, status), _ = after(*looks, cwd=tmp_path)
    assert not {"optuna", "sqlalchemy", "alembic"} & (front | report), "nothing has changed since the search"
    assert not {"torch", "timm", "plotly", "sklearn", "scipy", "matplotlib", "pandas"} & front
    assert not {"torch", "timm", "sklearn", "matplotlib", "pandas"} & (report | status)
    assert (tmp_path / "report.html").is_file()
