"""Packages import in one direction, and the CLI's help imports nothing heavy."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from mobilezoo.search.records import Figures, LatencyEstimate, SearchConfig
from mobilezoo.search.study import search

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {
    "layers": ("mobilezoo/layers", 1),
    "models": ("mobilezoo/models", 2),
    "data": ("mobilezoo/data", 2),
    "train": ("mobilezoo/train", 3),
    "export": ("export/mobilezoo_export", 4),
    "latency": ("latency/mobilezoo_latency", 5),
    "search": ("mobilezoo/search", 6),
    "report": ("mobilezoo/report", 7),
}
PREFIX = {"mobilezoo_export": "export", "mobilezoo_latency": "latency"}
FORBIDDEN = {"search": {"export", "latency"}}


def imported(file: Path) -> set[str]:
    """Our packages that a file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    ours = {PREFIX[n.split(".")[0]] for n in names if n.split(".")[0] in PREFIX}
    return ours | {n.split(".")[1] for n in names if n.startswith("mobilezoo.") and n.split(".")[1] in LAYERS}


@pytest.mark.parametrize("package", LAYERS)
def test_no_package_imports_one_above_it(package: str) -> None:
    folder, level = LAYERS[package]
    for file in (ROOT / folder).rglob("*.py"):
        for other in imported(file) - {package}:
            assert LAYERS[other][1] <= level, f"{file.relative_to(ROOT)} imports {other}"
            assert other not in FORBIDDEN.get(package, set()), f"{file.relative_to(ROOT)} imports {other}"


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


def test_a_look_at_a_search_imports_no_torch(tmp_path: Path) -> None:
    """A status that takes seconds of imports is not asked for twice."""
    stage = {"stride": 2, "block": ["ir"], "width": [8, 16], "kernel": [3, 5], "expansion": [2, 3], "depth": [1, 2]}
    data = {"space": {"resolution": [32], "stages": [stage]}, "objective": {"target_ms": 9}, "recipe": "digits"}
    config = SearchConfig.parse({**data, "engine": "random", "trials": 12, "name": "toy"})
    figures = Figures(latency={"host": LatencyEstimate(ms=1, source="a formula")})
    search(config, lambda candidate: 50.0 + candidate.number, lambda candidate: figures, tmp_path)
    looks = [("search", verb, str(tmp_path)) for verb in ("status", "front", "report")]
    (status, front, report), _ = after(*looks, cwd=tmp_path)
    assert not {"torch", "timm", "plotly", "sklearn", "scipy", "matplotlib", "pandas"} & (status | front)
    assert not {"torch", "timm", "sklearn", "matplotlib", "pandas"} & report
    assert (tmp_path / "report.html").is_file()
