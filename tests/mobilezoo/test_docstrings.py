"""Public functions that take several values say what each of them is, in the field's words."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES: tuple[str, ...] = (
    "export/mobilezoo_export",
    "latency/mobilezoo_latency",
    "mobilezoo",
    "mobilezoo/data",
    "mobilezoo/layers",
    "mobilezoo/models",
    "mobilezoo/report",
    "mobilezoo/search",
    "mobilezoo/testing",
    "mobilezoo/train",
    "mobilezoo/workflows",
)
NESTED = {"mobilezoo": "*.py"}
PERSONS = re.compile(r"\b(says?|said|tells?|told|asks?|asked|knows?)\b", re.IGNORECASE)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def files(package: str) -> list[Path]:
    return sorted(
        f
        for f in (ROOT / package).rglob(NESTED.get(package, "*.py"))
        if f.parent == ROOT / package or package not in NESTED
    )


def classes() -> dict[str, ast.ClassDef]:
    """Every class of the three packages, by its plain name."""
    found = {}
    for folder in ("mobilezoo", "export/mobilezoo_export", "latency/mobilezoo_latency"):
        for file in (ROOT / folder).rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found |= {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    return found


CLASSES = classes()


def described_above(owner: ast.ClassDef, method: str) -> bool:
    """True if a base class of ours has the method with a docstring: the override keeps that promise."""
    bases = [
        CLASSES[name] for base in owner.bases if (name := ast.unparse(base).rsplit(".", 1)[-1].split("[")[0]) in CLASSES
    ]
    for base in bases:
        own = [node for node in base.body if isinstance(node, Function) and node.name == method]
        if (own and ast.get_docstring(own[0])) or described_above(base, method):
            return True
    return False


def public_functions(file: Path) -> list[Function]:
    """Module functions and methods that others call; overrides of a described method are left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [node for node in tree.body if isinstance(node, Function)]
    for owner in tree.body:
        if isinstance(owner, ast.ClassDef) and not owner.name.startswith("_"):
            methods = [node for node in owner.body if isinstance(node, Function)]
            found += [node for node in methods if not described_above(owner, node.name)]
    return [node for node in found if not node.name.startswith("_") and not is_overload(node)]


def is_overload(function: Function) -> bool:
    """Overloads share the docstring of the implementation after them."""
    return any(ast.unparse(one).endswith("overload") for one in function.decorator_list)


def names(function: Function) -> list[str]:
    args = function.args
    every = (*args.posonlyargs, *args.args, args.vararg, *args.kwonlyargs, args.kwarg)
    return [a.arg for a in every if a is not None and a.arg not in ("self", "cls") and not a.arg.startswith("_")]


def undescribed(function: Function) -> list[str]:
    """The arguments of a function with several that its `Args` does not name."""
    wanted = names(function)
    if len(wanted) < 2:
        return []
    section = (ast.get_docstring(function) or "").partition("Args:")[2]
    return [name for name in wanted if not re.search(rf"^\s+\*{{0,2}}{name}(?: \([^)]*\))?:", section, re.MULTILINE)]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_argument_of_a_public_function_is_described(package: str) -> None:
    missing = {
        f"{f.relative_to(ROOT)}:{one.name}": lacks
        for f in files(package)
        for one in public_functions(f)
        if (lacks := undescribed(one))
    }
    assert not missing


@pytest.mark.parametrize("package", PACKAGES)
def test_docstrings_do_not_speak_of_things_as_of_persons(package: str) -> None:
    """A function returns, reports or raises; it does not say, tell, ask or know."""
    spoken = {}
    for file in files(package):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | Function):
                text = ast.get_docstring(node) or ""
                if found := PERSONS.findall(text):
                    spoken[f"{file.relative_to(ROOT)}:{getattr(node, 'name', 'module')}"] = found
    assert not spoken
