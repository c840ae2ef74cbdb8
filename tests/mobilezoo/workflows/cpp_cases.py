"""How tests build C++ kits: as their README has it, with the libraries of the runtimes' Python packages."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from mobilezoo.workflows.kit import write_kit
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions

needs_compiler = pytest.mark.skipif(
    not (shutil.which("cmake") and shutil.which("g++") and Path("/usr/include/jpeglib.h").is_file()),
    reason="no CMake, C++ compiler or libjpeg here: run `apt-get install cmake g++ libjpeg62-turbo-dev`",
)


def site(module: str) -> Path:
    """Folder of an installed Python package."""
    found = importlib.util.find_spec(module)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent


def runtime_option(library: str, folder: Path) -> str:
    """CMake's option for the library of a Python package; `folder` takes links to it."""
    if library == "litert":
        return f"-DLITERT_LIBRARY_DIR={site('ai_edge_litert')}"
    (whole,) = (site("onnxruntime") / "capi").glob("libonnxruntime.so.1.*")
    (folder / "lib").mkdir(exist_ok=True)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1", whole.name):
        (folder / "lib" / name).symlink_to(whole)
    return f"-DONNXRUNTIME_ROOT={folder}"


def run(command: list[str], cwd: Path) -> str:
    """What a program prints that ends well."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def built(file: Path, folder: Path, options: ModelOptions = NO_OPTIONS, *, build_type: str = "Release") -> Path:
    """A kit in `folder`/kit whose program is built, without a warning, in its folder `build`."""
    kit = folder / "kit"
    write_kit(file, "cpp", kit, options)
    option = runtime_option("litert" if file.suffix == ".tflite" else "onnx", folder)
    run(["cmake", "-B", "build", option, f"-DCMAKE_BUILD_TYPE={build_type}"], kit)
    rebuild(kit)
    return kit


def rebuild(kit: Path) -> None:
    """Build what changed in a kit."""
    assert "warning" not in run(["sh", "-c", "cmake --build build 2>&1"], kit)
