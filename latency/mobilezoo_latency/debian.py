"""Files out of Debian and Ubuntu packages, as an ordinary user: downloaded, unpacked, never installed."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from mobilezoo.errors import DeviceError


def fetch_files(package: str, names: Sequence[str], folder: Path) -> list[Path]:
    """Downloads a package and finds files in it by their name.

    Args:
        package: name of the package.
        names: file names, wherever they lie in it.
        folder: an empty folder, in which the package is unpacked.

    Returns:
        Paths below `folder`, in the order of `names`.

    Raises:
        DeviceError: there is no apt, the package cannot be fetched, or a file is not in it.
    """
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise DeviceError(f"{tool} not found: {package} is unpacked from a Debian or Ubuntu package; install it")
    if not _downloaded(["apt-get"], package, folder):
        lists = folder / "apt"
        for part in ("lists/partial", "cache/archives/partial"):
            (lists / part).mkdir(parents=True)
        private = ["apt-get", "-o", f"Dir::State::lists={lists}/lists", "-o", f"Dir::Cache={lists}/cache"]
        private += ["-o", "Debug::NoLocking=1", "-o", "APT::Sandbox::User=root"]
        _call([*private, "update"], folder)
        if not _downloaded(private, package, folder):
            raise DeviceError(f"apt offers no package {package}: install Chromium, or use Debian 12 or newer")
    (deb,) = folder.glob("*.deb")
    _call(["dpkg", "-x", str(deb), str(folder / "tree")], folder)
    found = [next(iter(sorted((folder / "tree").rglob(name))), None) for name in names]
    if missing := [name for name, path in zip(names, found, strict=True) if path is None]:
        raise DeviceError(f"the package {deb.name} holds no {missing[0]}: install Chromium or Chrome from elsewhere")
    return [path for path in found if path is not None]


def _downloaded(apt: Sequence[str], package: str, folder: Path) -> bool:
    command = [*apt, "download", package]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, env={**os.environ, "LC_ALL": "C"})
    return done.returncode == 0 and any(folder.glob("*.deb"))


def _call(command: Sequence[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise DeviceError(f"`{' '.join(command[:2])} ...` failed: {lines[-1] if lines else done.returncode}")
