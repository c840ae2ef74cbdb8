"""What the built package holds."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import mobilezoo

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"mobilezoo": ROOT, "mobilezoo_export": ROOT / "export", "mobilezoo_latency": ROOT / "latency"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_its_version_is_the_package_s(wheel: Path) -> None:
    assert wheel.name == f"mobilezoo-{mobilezoo.__version__}-py3-none-any.whl"


def test_type_checkers_read_all_three_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)


def test_every_module_and_config_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {p.relative_to(root).as_posix() for name, root in PACKAGES.items() for p in (root / name).rglob("*.py")}
    configs = {f"mobilezoo/{p.relative_to(ROOT).as_posix()}" for p in (ROOT / "configs").rglob("*.*")}
    assert modules | configs <= names
    assert not [name for name in names if name.startswith("tests")]


def test_its_tables_and_page_assets_are_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    data = [*(ROOT / "mobilezoo" / "models").glob("*.json"), *(ROOT / "mobilezoo" / "report" / "assets").iterdir()]
    found = {p.relative_to(ROOT).as_posix() for p in data}
    assert {"mobilezoo/models/latency.json", "mobilezoo/report/assets/zoo.js"} <= found <= names
