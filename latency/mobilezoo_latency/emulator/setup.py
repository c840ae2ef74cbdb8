"""`mobilezoo device setup emulator`: everything the emulator needs, as an ordinary user.

QEMU, LLVM and an arm64 cross compiler are downloaded as distribution packages and unpacked (never installed); the arm64
runtimes come out of their wheels; the counting plugin and the runners are compiled. All of it is put together in a
scratch folder, verified with a real count, and only then renamed into place, so a broken set-up leaves nothing behind.
Runtimes besides LiteRT are optional: one that cannot be had costs a line.
"""

import os
import platform
import shutil
import tempfile
from pathlib import Path

from mobilezoo.errors import DeviceError
from mobilezoo.files import write_text
from mobilezoo.installed import STAMP
from mobilezoo_latency.emulator.compiling import compile_clock, compile_plugin, compile_runner, host_compiler
from mobilezoo_latency.emulator.layout import Emulator, Installed, find_emulator, home, tool_environment
from mobilezoo_latency.emulator.packages import OnMessage, add_cpp_compiler, call, download_runtime, unpack_packages
from mobilezoo_latency.emulator.runtimes import (
    RUNTIMES,
    SOURCES,
    InstalledRuntime,
    Prepared,
    Runtime,
    folder_of,
    hash_of_sources,
    installed_runtime,
)

LITERT = RUNTIMES["litert"]


def set_up(on_message: OnMessage = print, force: bool = False) -> Emulator:
    """Prepares and verifies the emulator; of a complete one, only what is new is made.

    Args:
        on_message: called with a line per step.
        force: prepare again even if it is complete.

    Returns:
        The emulator.

    Raises:
        DeviceError: a step failed; then nothing is left behind.
    """
    from mobilezoo_latency.emulator.probe import verify

    _check_machine()
    if not force and (known := _known()) is not None:
        on_message(f"emulator: already prepared in {known.root}")
        known = _compiled_again(known, on_message) if known.installed.sources_sha256 != sources_sha256() else known
        verify(known)
        add_runtimes(known, on_message)
        on_message("emulator: verified")
        return known
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".emulator.", dir=target.parent))
    try:
        emulator = _prepare(stage, on_message)
        verify(emulator)
        on_message("emulator: two counts agree to the instruction")
        add_runtimes(emulator, on_message)
        _replace(target, stage)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    on_message(f"emulator: ready in {target}")
    return find_emulator(target)


def sources_sha256() -> str:
    """Hash of what every emulator is compiled from, so that a new version is compiled again."""
    return hash_of_sources(SOURCES)


def add_runtimes(emulator: Emulator, on_message: OnMessage) -> None:
    """Prepares the optional runtimes that an emulator lacks; one that cannot be had costs a line.

    Args:
        emulator: the prepared emulator, which may be in use.
        on_message: called with a line per step.
    """
    for runtime in RUNTIMES.values():
        if runtime is LITERT:
            continue
        try:
            _add_runtime(emulator, runtime, on_message)
        except DeviceError as error:
            on_message(f"emulator: without {runtime.title}: {error}")


def _add_runtime(emulator: Emulator, runtime: Runtime, on_message: OnMessage) -> None:
    """Prepare one runtime in a folder of its own, or compile its runner again where its sources changed."""
    folder, found = folder_of(emulator, runtime.target), installed_runtime(emulator, runtime.target)
    sources = hash_of_sources(runtime.sources)
    if found is not None and found.sources_sha256 == sources:
        return
    if runtime.headers:
        add_cpp_compiler(emulator.root, on_message)
    if found is not None:
        on_message(f"emulator: compiling the runner of {runtime.title}")
        compile_runner(emulator.root, runtime, folder / "lib", folder / "run")
        _stamp(folder, InstalledRuntime(version=found.version, sources_sha256=sources))
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{runtime.target}.", dir=folder.parent))
    try:
        version = download_runtime(stage, runtime, on_message)
        compile_runner(emulator.root, runtime, stage / "lib", stage / "run")
        _check_start(emulator, runtime, stage)
        _stamp(stage, InstalledRuntime(version=version, sources_sha256=sources))
        _replace(folder, stage)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    on_message(f"emulator: {runtime.title} {version} is ready")


def _check_start(emulator: Emulator, runtime: Runtime, folder: Path) -> None:
    """Raise DeviceError unless the runner starts with all its libraries: without arguments it prints its usage."""
    from mobilezoo_latency.emulator.counting import guest_command
    from mobilezoo_latency.emulator.probe import probe_core

    staged = Prepared(runtime, "", folder / "run", folder / "lib")
    done = emulator.call(guest_command(emulator, probe_core(), staged))
    if done.returncode != 2:
        lines = done.stderr.strip().splitlines()
        raise DeviceError(f"{runtime.title} does not start: {lines[-1] if lines else done.returncode}")


def _stamp(folder: Path, record: InstalledRuntime) -> None:
    write_text(folder / STAMP, record.model_dump_json(indent=2) + "\n")


def _replace(folder: Path, stage: Path) -> None:
    """Put a finished folder in place; programs that run meanwhile keep the files they opened."""
    os.chmod(stage, 0o755)  # noqa: PTH101 - mkdtemp's folder is private
    old = stage.with_name(f"{stage.name}.old")
    if folder.exists():
        folder.rename(old)
    stage.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _known() -> Emulator | None:
    try:
        return find_emulator()
    except DeviceError:
        return None


def _compiled_again(emulator: Emulator, on_message: OnMessage) -> Emulator:
    """The same emulator with plugin and runner of today's sources; counts that run meanwhile keep the old files."""
    _compile(emulator.root, on_message)
    installed = emulator.installed.model_copy(update={"sources_sha256": sources_sha256()})
    write_text(emulator.root / STAMP, installed.model_dump_json(indent=2) + "\n")
    return Emulator(emulator.root, installed)


def _check_machine() -> None:
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise DeviceError(
            f"the emulator runs on x86-64 Linux only, and this is {platform.system()} {platform.machine()}: "
            "QEMU user mode needs Linux, and its packages are chosen for x86-64"
        )
    for tool, package in (("apt-get", "apt"), ("dpkg", "dpkg")):
        if shutil.which(tool) is None:
            raise DeviceError(f"{tool} not found: the emulator unpacks Debian or Ubuntu packages ({package})")
    if host_compiler() is None:
        raise DeviceError(
            "no C compiler found (cc, gcc, clang): install one, for example `apt-get install gcc libc6-dev`"
        )


def _prepare(stage: Path, on_message: OnMessage) -> Emulator:
    suffix = unpack_packages(stage, on_message)
    litert = download_runtime(stage / "litert", LITERT, on_message)
    (stage / "litert" / "lib").rename(stage / "lite")
    (stage / "litert").rmdir()
    _compile(stage, on_message)
    _arrange_sysroot(stage)
    installed = Installed(
        qemu=_version(stage, "qemu-aarch64", "version "),
        llvm=_version(stage, f"llvm-mca-{suffix}", "LLVM version "),
        llvm_suffix=suffix,
        litert=litert,
        sources_sha256=sources_sha256(),
    )
    write_text(stage / STAMP, installed.model_dump_json(indent=2) + "\n")
    return Emulator(stage, installed)


def _compile(root: Path, on_message: OnMessage) -> None:
    """Build the plugin for this machine, LiteRT's runner and the profiler's clock for arm64."""
    on_message("emulator: compiling the plugin and the runner")
    compile_plugin(root)
    compile_clock(root)
    compile_runner(root, LITERT, root / "lite", root / "bin" / "litert_run")


def _arrange_sysroot(stage: Path) -> None:
    """What QEMU's `-L` shows the guest, but for the files that describe a core (counting.py adds those)."""
    sysroot = stage / "sysroot"
    sysroot.mkdir()
    (sysroot / "lib").symlink_to(Path("..") / "tools" / "usr" / "aarch64-linux-gnu" / "lib")


def _version(stage: Path, tool: str, before: str) -> str:
    """The word after `before` in a tool's --version."""
    printed = call([str(stage / "tools" / "usr" / "bin" / tool), "--version"], environment=tool_environment(stage))
    return printed.partition(before)[2].split()[0]
