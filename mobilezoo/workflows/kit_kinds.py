"""The kinds of kits that `mobilezoo kit` writes: which files each runs, and of which templates it is made."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mobilezoo.artifacts import Task

TEMPLATES = Path(__file__).parents[1] / "kits"
NUMBERS = ("float32", "uint8", "int8")
MORE_NUMBERS = ("float16", "float64", "int16", "int32", "int64")
SHARED = ("answers.mjs", "decode.mjs", "dense.mjs", "network.mjs", "prepare.mjs")
PAGE = {f"../../try_page/{name}": name for name in SHARED}
"""What a web kit shares with the page of `mobilezoo try`."""
DRAW = {"README-dense.md": "README.md", "draw.py": "draw.py"}
"""Of a Python kit that draws boxes and masks."""
CPP_DRAW = {"README-dense.md": "README.md", "draw.cpp": "draw.cpp", "draw.h": "draw.h"}
"""Of a C++ kit that draws boxes and masks."""
FILLED_HEADERS = ("model.h", "boxes.h", "mask.h")
"""Headers of a C++ kit that are filled in."""
APP = "app/src/main"
CODE = f"{APP}/java/org/mobilezoo/classify"
ANDROID_DRAW = {"README-dense.md": "README.md", "Dense.kt": f"{CODE}/Dense.kt"}
"""Of an Android kit that draws boxes and masks."""
SWIFT = "Sources/Classify"
IOS_DRAW = {
    "README-dense.md": "README.md",
    **{f"{name}.swift": f"{SWIFT}/{name}.swift" for name in ("CameraView", "Dense", "Finder")},
    "main-dense.swift": "Sources/read-images/main.swift",
}
"""Of an iOS kit that draws boxes and masks."""


class Runs(NamedTuple):
    """How a kind of kit runs the files of one export target."""

    files: Mapping[str, str] = {}
    """Template → place in the kit, besides those of the kind; `.md` files and `FILLED_HEADERS` are filled in."""
    types: tuple[str, ...] = NUMBERS
    """Types of input and output that its code and runtime handle."""
    assets: tuple[str, ...] = ()
    """Folders of the browser runtimes that go into the kit."""
    channels: tuple[int, ...] = (1, 3)
    any_size: bool = True
    """Whether it can give a file the size that the file leaves open."""


class KitKind(NamedTuple):
    """What a kind of kit can run, and which templates it is made of."""

    files: Mapping[str, str]
    """Template → place in the kit."""
    runs: Mapping[str, Runs]
    """Export target → how its files are run."""
    tasks: Mapping[Task, Mapping[str, str]]
    """What a file answers → further templates and their places for it."""
    model: str = ""
    """Folder of the network, and of `model.json`, in the kit."""


KINDS: dict[str, KitKind] = {
    "python": KitKind(
        {"network.py": "network.py"},
        {
            "litert": Runs({"requirements-litert.txt": "requirements.txt"}, (*NUMBERS, *MORE_NUMBERS), (), (1, 3, 4)),
            "onnx": Runs({"requirements-onnx.txt": "requirements.txt"}, (*NUMBERS, *MORE_NUMBERS), (), (1, 3, 4)),
        },
        tasks={"classify": {"README.md": "README.md", "classify.py": "classify.py"}, "detect": DRAW, "segment": DRAW},
    ),
    "web": KitKind(
        {**{name: name for name in ("index.html", "main.mjs")}, **PAGE},
        {
            "litert": Runs({}, ("float32", "int32", "uint8"), ("litert", "wasm-utils"), (1, 3, 4)),
            "onnx": Runs({}, ("float32", "float64", "int8", "uint8", "int16", "int32", "int64"), ("ort",), (1, 3, 4)),
        },
        tasks={
            "classify": {"README.md": "README.md"},
            "detect": {"README-dense.md": "README.md"},
            "segment": {"README-dense.md": "README.md"},
        },
    ),
    "cpp": KitKind(
        {
            name: name
            for name in (
                "CMakeLists.txt",
                "answers.cpp",
                "answers.h",
                "image.cpp",
                "image.h",
                "main.cpp",
                "model.h",
                "network.h",
                "prepare.cpp",
                "prepare.h",
            )
        },
        {
            "litert": Runs(
                {
                    "litert_c.h": "litert_c.h",
                    "network-litert.cpp": "network.cpp",
                    "runtime-litert.cmake": "runtime.cmake",
                    "runtime-litert.md": "RUNTIME.md",
                },
                any_size=False,
            ),
            "onnx": Runs(
                {
                    "onnxruntime_c.h": "onnxruntime_c.h",
                    "network-onnx.cpp": "network.cpp",
                    "runtime-onnx.cmake": "runtime.cmake",
                    "runtime-onnx.md": "RUNTIME.md",
                }
            ),
        },
        tasks={
            "classify": {
                "README.md": "README.md",
                "program-classify.cmake": "program.cmake",
                "classes.cpp": "classes.cpp",
            },
            "detect": {
                **CPP_DRAW,
                "program-detect.cmake": "program.cmake",
                "boxes.cpp": "boxes.cpp",
                "boxes.h": "boxes.h",
            },
            "segment": {
                **CPP_DRAW,
                "program-segment.cmake": "program.cmake",
                "mask.cpp": "mask.cpp",
                "mask.h": "mask.h",
            },
        },
    ),
}

KINDS |= {
    "android": KitKind(
        {
            **{name: name for name in ("build.gradle.kts", "gradle.properties", "settings.gradle.kts")},
            "app.build.gradle.kts": "app/build.gradle.kts",
            "AndroidManifest.xml": f"{APP}/AndroidManifest.xml",
            **{
                f"{name}.kt": f"{CODE}/{name}.kt"
                for name in ("Answers", "Found", "MainActivity", "Model", "Network", "Prepare")
            },
        },
        {"litert": Runs()},
        model=f"{APP}/assets",
        tasks={
            "classify": {
                "README.md": "README.md",
                "Classes.kt": f"{CODE}/Classes.kt",
                "FindClasses.kt": f"{CODE}/Find.kt",
            },
            "detect": {**ANDROID_DRAW, "FindBoxes.kt": f"{CODE}/Find.kt"},
            "segment": {**ANDROID_DRAW, "FindMask.kt": f"{CODE}/Find.kt"},
        },
    ),
    "ios": KitKind(
        {
            "Package.swift": "Package.swift",
            **{f"{name}.swift": f"{SWIFT}/{name}.swift" for name in ("Images", "Model", "Network", "Prepare")},
        },
        {"coreml": Runs(types=(*NUMBERS, "float16"))},
        model=f"{SWIFT}/Network",
        tasks={
            "classify": {
                "README.md": "README.md",
                "Classifier.swift": f"{SWIFT}/Classifier.swift",
                "main.swift": "Sources/read-images/main.swift",
            },
            "detect": IOS_DRAW,
            "segment": IOS_DRAW,
        },
    ),
}


def kinds_of(target: str) -> list[str]:
    """Names of the kits that run files of an export target.

    Args:
        target: name of an export target.
    """
    return [name for name, kind in KINDS.items() if target in kind.runs]
