"""Distribution packages and wheels for the emulator, downloaded and unpacked as an ordinary user, never installed."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from mobilezoo.errors import DeviceError
from mobilezoo.files import versions
from mobilezoo_latency.emulator.runtimes import Runtime

OnMessage = Callable[[str], None]

PACKAGES = ("qemu-user", "gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "libstdc++6-arm64-cross")
CPP_PACKAGE = "g++-aarch64-linux-gnu"
CPP_COMPILER = "aarch64-linux-gnu-g++"
LLVM_SUFFIXES = ("19", "20", "18", "17")
"""In order of preference; the shipped calibrations were made with 19."""
WHEEL_PLATFORMS = ("manylinux2014", "manylinux_2_27", "manylinux_2_28", "manylinux_2_31", "manylinux_2_34")


def unpack_packages(stage: Path, on_message: OnMessage) -> str:
    """Downloads and unpacks what this system lacks of PACKAGES and the first LLVM on offer.

    Args:
        stage: folder of the emulator to be; the files go to `tools/`.
        on_message: called with a line per step.

    Returns:
        LLVM's suffix.

    Raises:
        DeviceError: apt does not offer the packages, or a download fails.
    """
    on_message("emulator: asking apt which packages are missing")
    choices = {suffix: [*PACKAGES, f"llvm-{suffix}"] for suffix in LLVM_SUFFIXES}
    suffix = _unpack(stage, stage / "tools", choices, on_message)
    _link_installed(stage, suffix)
    return suffix


def add_cpp_compiler(root: Path, on_message: OnMessage) -> None:
    """Adds the C++ cross compiler to an emulator that has none; files that exist stay as they are.

    Args:
        root: folder of a prepared emulator, which may be in use.
        on_message: called with a line per step.

    Raises:
        DeviceError: apt does not offer it, or a download fails.
    """
    target = root / "tools" / "usr" / "bin" / CPP_COMPILER
    if target.exists():
        return
    if (found := shutil.which(CPP_COMPILER)) is not None:
        target.symlink_to(found)
        return
    stage = Path(tempfile.mkdtemp(prefix=".cpp.", dir=root))
    try:
        _unpack(stage, stage / "tools", {"": [CPP_PACKAGE]}, on_message)
        for path in sorted((stage / "tools").rglob("*")):
            place = root / "tools" / path.relative_to(stage / "tools")
            if path.is_dir() and not path.is_symlink():
                place.mkdir(parents=True, exist_ok=True)
            elif not os.path.lexists(place):
                path.rename(place)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def download_runtime(folder: Path, runtime: Runtime, on_message: OnMessage) -> str:
    """Downloads the arm64 wheel of the installed version of a runtime and takes its libraries and headers out.

    Args:
        folder: gets `lib/`, and `include/` where the runtime has headers.
        runtime: which one.
        on_message: called with a line per step.

    Returns:
        The version.

    Raises:
        DeviceError: there is no arm64 wheel of this version, or it holds no such libraries.
    """
    version = versions([runtime.distribution]).get(runtime.distribution)
    name = f"{runtime.distribution}=={version.partition('+')[0]}" if version else runtime.distribution
    on_message(f"emulator: downloading the arm64 wheel of {name}")
    wheels = folder / "wheels"
    platforms = [f"--platform={tag}_aarch64" for tag in WHEEL_PLATFORMS]
    python = f"--python-version={sys.version_info.major}.{sys.version_info.minor}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", python, *platforms]
    call([*command, "--disable-pip-version-check", "--quiet", "--dest", str(wheels), name])
    (wheel,) = wheels.glob("*.whl")
    _take_out(wheel, runtime, folder)
    shutil.rmtree(wheels)
    return wheel.name.split("-")[1]


def call(command: list[str], cwd: Path | None = None, environment: dict[str, str] | None = None) -> str:
    """Runs a step to its end.

    Args:
        command: the program and its arguments.
        cwd: its working folder.
        environment: its environment; None takes this process's.

    Returns:
        Its standard output.

    Raises:
        DeviceError: it fails; with the last line that it printed.
    """
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        step = " ".join([Path(command[0]).name, *command[1:3]])
        raise DeviceError(f"emulator set-up failed at `{step} ...`: {lines[-1] if lines else done.returncode}")
    return done.stdout


def _take_out(wheel: Path, runtime: Runtime, folder: Path) -> None:
    """Write a wheel's libraries to lib/ under the names they are linked by, and its headers to include/."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        libraries = [name for name in names if re.fullmatch(runtime.libraries, name)]
        if not libraries:
            raise DeviceError(f"{wheel.name} holds no {runtime.libraries}: this version is not supported")
        for name in libraries:
            # libNAME.so.1.2.3 is linked as libNAME.so.1
            linked = re.sub(r"(\.so\.\d+)[.\d]*$", r"\1", Path(name).name)
            _write(folder / "lib" / linked, archive.read(name))
        for name in names if runtime.headers else ():
            if name.startswith(runtime.headers) and not name.endswith("/"):
                _write(folder / "include" / name.removeprefix(runtime.headers), archive.read(name))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _unpack(stage: Path, tools: Path, choices: dict[str, list[str]], on_message: OnMessage) -> str:
    """Download and unpack the missing packages of the first choice that apt has; returns its key."""
    debs = stage / "debs"
    debs.mkdir()
    apt, chosen, wanted = _plan(stage, choices)
    on_message(f"emulator: downloading {len(wanted)} packages (up to 100 MB)")
    call([*apt, "download", *wanted], cwd=debs)
    on_message("emulator: unpacking")
    for deb in sorted(debs.glob("*.deb")):
        call(["dpkg", "-x", str(deb), str(tools)])
    shutil.rmtree(debs)
    shutil.rmtree(stage / "apt", ignore_errors=True)
    shutil.rmtree(tools / "usr" / "share", ignore_errors=True)  # documentation
    return chosen


def _plan(stage: Path, choices: dict[str, list[str]]) -> tuple[list[str], str, list[str]]:
    """(apt command, key of the choice, `name=version` of each missing package); private package lists where needed."""
    private = ["apt-get", "-o", f"Dir::State::lists={stage}/apt/lists", "-o", f"Dir::Cache={stage}/apt/cache"]
    private += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]
    for apt in (["apt-get"], private):
        if apt is private:
            for folder in ("lists/partial", "cache/archives/partial"):
                (stage / "apt" / folder).mkdir(parents=True, exist_ok=True)
            call([*apt, "update"])
        for key, names in choices.items():
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
                return apt, key, [f"{name}={version}" for name, version in chosen]
    offers = "; ".join(", ".join(names) for names in choices.values())
    raise DeviceError(f"apt offers none of: {offers}: Debian 12 and Ubuntu 24.04 have them")


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
