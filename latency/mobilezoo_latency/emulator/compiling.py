"""The programs of the emulator, compiled from `native/` and put in place in one step each."""

import shutil
from pathlib import Path

from mobilezoo.files import atomic_write
from mobilezoo_latency.emulator.layout import NATIVE, tool_environment
from mobilezoo_latency.emulator.packages import CPP_COMPILER, call
from mobilezoo_latency.emulator.runtimes import COMMON_SOURCES, Runtime

CPP_FLAGS = ("-std=c++17", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-DET_EVENT_TRACER_ENABLED")
"""As ExecuTorch's wheel states them for programs that use its headers."""
COMMON = [str(NATIVE / name) for name in COMMON_SOURCES if name.endswith(".c")]
C10_HEADERS = Path("executorch") / "runtime" / "core" / "portable_type" / "c10"


def host_compiler() -> str | None:
    """This machine's C compiler."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def compile_plugin(root: Path) -> None:
    """Builds the counting plugin for this machine. Raises DeviceError."""
    compiler = host_compiler()
    assert compiler is not None
    flags = ["-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
    command = [compiler, *flags, str(NATIVE / "blockcount.c"), "-o"]
    atomic_write(root / "bin" / "blockcount.so", lambda path: _build([*command, str(path)]))


def compile_clock(root: Path) -> None:
    """Builds the arm64 library whose clock numbers the parts of a run. Raises DeviceError."""
    command = [*_c(root), "-shared", "-fPIC", str(NATIVE / "clock.c"), "-o"]
    atomic_write(root / "bin" / "clock.so", lambda path: _build([*command, str(path)], tool_environment(root)))


def compile_runner(root: Path, runtime: Runtime, folder: Path, program: Path) -> None:
    """Builds a runtime's runner for arm64.

    Args:
        root: folder of the emulator, which holds the cross compiler.
        runtime: whose runner.
        folder: its libraries; headers lie in `include/` beside it.
        program: the file to write.

    Raises:
        DeviceError: it does not compile.
    """
    sources = [str(NATIVE / runtime.source), *COMMON]
    command = _cpp(root, runtime, folder) if runtime.headers else [*_c(root), *sources]
    libraries = sorted(str(path) for path in folder.glob("*.so*"))
    # the kernels of a runtime register themselves when their library is loaded: keep those that nothing calls
    command += ["-Wl,--no-as-needed", *libraries, "-Wl,--allow-shlib-undefined", "-o"]
    atomic_write(program, lambda path: _build([*command, str(path)], tool_environment(root)))


def _c(root: Path) -> list[str]:
    flags, arm = _cross(root), root / "tools" / "usr" / "aarch64-linux-gnu"
    headers = [] if arm.is_symlink() else ["-isystem", str(arm / "include")]
    compiler = str(root / "tools" / "usr" / "bin" / "aarch64-linux-gnu-gcc")
    return [compiler, "-O2", *flags, *headers]


def _cpp(root: Path, runtime: Runtime, folder: Path) -> list[str]:
    flags, arm = _cross(root), root / "tools" / "usr" / "aarch64-linux-gnu"
    include = folder.parent / "include"
    headers: list[str] = []
    for cpp in [] if arm.is_symlink() else sorted((arm / "include" / "c++").glob("*")):
        headers += ["-isystem", str(cpp), "-isystem", str(cpp / "aarch64-linux-gnu"), "-isystem", str(arm / "include")]
    headers += ["-isystem", str(include), "-isystem", str(include / C10_HEADERS)]
    compiler = str(root / "tools" / "usr" / "bin" / CPP_COMPILER)
    common = [word for source in COMMON for word in ("-x", "c", source)]  # g++ forgets the language after one file
    return [compiler, "-O2", *flags, *CPP_FLAGS, *headers, str(NATIVE / runtime.source), *common, "-x", "none"]


def _cross(root: Path) -> list[str]:
    """Where an unpacked compiler finds its libraries; nothing for an installed one."""
    arm = root / "tools" / "usr" / "aarch64-linux-gnu"
    if arm.is_symlink():
        return []
    return [f"--sysroot={root / 'tools'}", "-B", str(arm / "lib"), "-L", str(arm / "lib")]


def _build(command: list[str], environment: dict[str, str] | None = None) -> None:
    call(command, environment=environment)
