"""`mobilezoo device setup emulator`: everything the emulator needs, as an ordinary user.

QEMU, LLVM and an arm64 cross compiler are downloaded as distribution packages and unpacked (never installed); the arm64
LiteRT library comes out of its wheel; the counting plugin and the runner are compiled. All of it is put together in a
scratch folder, verified with a real count, and only then renamed into place, so a broken set-up leaves nothing behind.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from mobilezoo.errors import DeviceError
from mobilezoo.files import atomic_write, versions, write_text
from mobilezoo_latency.emulator.layout import (
    NATIVE,
    STAMP,
    Emulator,
    Installed,
    find_emulator,
    home,
    tool_environment,
)

OnMessage = Callable[[str], None]

PACKAGES = ("qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "libstdc++6-arm64-cross")
LLVM_SUFFIXES = ("19", "20", "18", "17")
"""In order of preference; the shipped calibrations were made with 19."""
WHEEL = "ai-edge-litert"
WHEEL_PLATFORMS = ("manylinux2014", "manylinux_2_27", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34")
LIBRARY = "ai_edge_litert/libLiteRt.so"


def set_up(on_message: OnMessage = print, force: bool = False) -> Emulator:
    """Prepares and verifies the emulator; a complete one of the same sources is only verified.

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
        on_message("emulator: verified")
        return known
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".emulator.", dir=target.parent))
    try:
        emulator = _prepare(stage, on_message)
        verify(emulator)
        on_message("emulator: two counts agree to the instruction")
        if target.exists():
            shutil.rmtree(target)
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    on_message(f"emulator: ready in {target}")
    return find_emulator(target)


def sources_sha256() -> str:
    """Hash of the C sources, so that a new version of them is compiled again."""
    digest = hashlib.sha256()
    for path in sorted(NATIVE.glob("*.c")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


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
    if _compiler() is None:
        raise DeviceError(
            "no C compiler found (cc, gcc, clang): install one, for example `apt-get install gcc libc6-dev`"
        )


def _compiler() -> str | None:
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def _prepare(stage: Path, on_message: OnMessage) -> Emulator:
    suffix = _unpack_packages(stage, on_message)
    litert = _unpack_runtime(stage, on_message)
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


def _unpack_packages(stage: Path, on_message: OnMessage) -> str:
    """Download and unpack what this system lacks of PACKAGES and the first LLVM on offer; returns LLVM's suffix."""
    debs = stage / "debs"
    debs.mkdir()
    on_message("emulator: asking apt which packages are missing")
    apt, suffix, wanted = _plan(stage, debs)
    on_message(f"emulator: downloading {len(wanted)} packages (about 100 MB)")
    _call([*apt, "download", *wanted], cwd=debs)
    on_message("emulator: unpacking")
    for deb in sorted(debs.glob("*.deb")):
        _call(["dpkg", "-x", str(deb), str(stage / "tools")])
    shutil.rmtree(debs)
    shutil.rmtree(stage / "apt", ignore_errors=True)
    shutil.rmtree(stage / "tools" / "usr" / "share", ignore_errors=True)  # documentation
    _link_installed(stage, suffix)
    return suffix


def _plan(stage: Path, debs: Path) -> tuple[list[str], str, list[str]]:
    """(apt command, LLVM suffix, `name=version` of each missing package), with private package lists where needed."""
    private = ["apt-get", "-o", f"Dir::State::lists={stage}/apt/lists", "-o", f"Dir::Cache={stage}/apt/cache"]
    private += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]
    for apt in (["apt-get"], private):
        if apt is private:
            for folder in ("lists/partial", "cache/archives/partial"):
                (stage / "apt" / folder).mkdir(parents=True, exist_ok=True)
            _call([*apt, "update"])
        for suffix in LLVM_SUFFIXES:
            names = [*PACKAGES, f"llvm-{suffix}"]
            plan = subprocess.run(
                [*apt, "install", "--simulate", "--no-install-recommends", *names],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "LC_ALL": "C"},
            )
            if plan.returncode == 0:
                lines = [line.split() for line in plan.stdout.splitlines() if line.startswith("Inst ")]
                # "Inst NAME [OLD] (NEW ...": the version to get is the one in parentheses.
                chosen = [(w[1], next(x for x in w if x.startswith("("))[1:]) for w in lines]
                return apt, suffix, [f"{name}={version}" for name, version in chosen]
    raise DeviceError(
        f"apt offers none of llvm-{', llvm-'.join(LLVM_SUFFIXES)} together with {', '.join(PACKAGES)}: "
        "Debian 12 and Ubuntu 24.04 have them"
    )


def _link_installed(stage: Path, suffix: str) -> None:
    """Packages that the system has already were not downloaded: link their files to where unpacked ones would be."""
    tools = stage / "tools" / "usr"
    (tools / "bin").mkdir(parents=True, exist_ok=True)
    for name in ("qemu-aarch64", f"llvm-mc-{suffix}", f"llvm-mca-{suffix}", "aarch64-linux-gnu-gcc"):
        if not (tools / "bin" / name).exists():
            found = shutil.which(name)
            if found is None:
                raise DeviceError(f"{name} is neither installed nor in the packages that apt named")
            (tools / "bin" / name).symlink_to(found)
    system = Path("/usr/aarch64-linux-gnu")
    if not (tools / "aarch64-linux-gnu" / "lib").exists() and system.is_dir():
        (tools / "aarch64-linux-gnu").symlink_to(system)


def _unpack_runtime(stage: Path, on_message: OnMessage) -> str:
    """libLiteRt.so from the arm64 wheel of the installed LiteRT version; returns that version."""
    version = versions([WHEEL]).get(WHEEL)
    name = f"{WHEEL}=={version}" if version else WHEEL
    on_message(f"emulator: downloading the arm64 wheel of {name}")
    wheels = stage / "wheels"
    platforms = [f"--platform={tag}_aarch64" for tag in WHEEL_PLATFORMS]
    python = f"--python-version={sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", python, *platforms]
    _call([*command, "--disable-pip-version-check", "--quiet", "--dest", str(wheels), name])
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        if LIBRARY not in archive.namelist():
            raise DeviceError(f"{wheel.name} holds no {LIBRARY}: this version of LiteRT is not supported")
        (stage / "lite").mkdir()
        (stage / "lite" / Path(LIBRARY).name).write_bytes(archive.read(LIBRARY))
    shutil.rmtree(wheels)
    return wheel.name.split("-")[1]


def _compile(root: Path, on_message: OnMessage) -> None:
    """Build the plugin for this machine and the runner for arm64, each put in place in one step."""
    on_message("emulator: compiling the plugin and the runner")
    compiler = _compiler()
    assert compiler is not None
    flags = ["-O2", "-shared", "-fPIC", "-fvisibility=hidden"]
    plugin = [compiler, *flags, str(NATIVE / "blockcount.c"), "-o"]
    atomic_write(root / "bin" / "blockcount.so", lambda path: _build([*plugin, str(path)]))
    arm = root / "tools" / "usr" / "aarch64-linux-gnu"
    runner = [str(root / "tools" / "usr" / "bin" / "aarch64-linux-gnu-gcc"), "-O2"]
    if not arm.is_symlink():
        runner += [f"--sysroot={root / 'tools'}", "-isystem", str(arm / "include")]
        runner += ["-B", str(arm / "lib"), "-L", str(arm / "lib")]
    runner += [str(NATIVE / "litert_run.c"), str(root / "lite" / "libLiteRt.so"), "-Wl,--allow-shlib-undefined", "-o"]
    atomic_write(root / "bin" / "litert_run", lambda path: _build([*runner, str(path)], tool_environment(root)))


def _build(command: list[str], environment: dict[str, str] | None = None) -> None:
    _call(command, environment=environment)


def _arrange_sysroot(stage: Path) -> None:
    """What QEMU's `-L` shows the guest, but for the files that describe a core (counting.py adds those)."""
    sysroot = stage / "sysroot"
    sysroot.mkdir()
    (sysroot / "lib").symlink_to(Path("..") / "tools" / "usr" / "aarch64-linux-gnu" / "lib")


def _version(stage: Path, tool: str, before: str) -> str:
    """The word after `before` in a tool's --version."""
    printed = _call([str(stage / "tools" / "usr" / "bin" / tool), "--version"], environment=tool_environment(stage))
    return printed.partition(before)[2].split()[0]


def _call(command: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Run a step to its end; its standard output. Raises DeviceError with the step's last line."""
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        step = " ".join([Path(command[0]).name, *command[1:3]])
        raise DeviceError(f"emulator set-up failed at `{step} ...`: {lines[-1] if lines else done.returncode}")
    return done.stdout
