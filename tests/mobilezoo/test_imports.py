"""Packages import in one direction, and the CLI's help imports nothing heavy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from mobilezoo.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as done:\n    assert not done.code\n"
        "heavy = {'torch', 'timm', 'numpy', 'onnx', 'optuna', 'plotly', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout
