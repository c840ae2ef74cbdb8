"""`mobilezoo device setup browser`: the JavaScript runtimes, from the npm registry, checked and unpacked.

Nothing is executed and nothing is built: three published archives of fixed versions are compared with the SHA-512 that
the registry names for them, and the few files that the page needs are taken out. npm is used where it is installed,
else the archives are downloaded over https.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mobilezoo.errors import ConfigError, DeviceError
from mobilezoo.files import sha256_of, write_text
from mobilezoo.installed import STAMP, folder_of
from mobilezoo.reading import mapping, read_json

OnMessage = Callable[[str], None]

ENVIRONMENT = "MOBILEZOO_BROWSER"
SETUP_LINE = "run `mobilezoo device setup browser` (two runtimes from the npm registry, about 45 MB)"
LIMIT_BYTES = 200_000_000


class Package(NamedTuple):
    """An npm package and the files that are taken out of its archive."""

    name: str
    version: str
    sha512: str
    """Published by the registry, base64."""
    license: str
    files: dict[str, str]
    """Path in the archive → path below the assets."""


def _wasm(build: str) -> dict[str, str]:
    return {f"wasm/litert_wasm_{build}.{ext}": f"litert/wasm/litert_wasm_{build}.{ext}" for ext in ("js", "wasm")}


PACKAGES = (
    Package(
        "onnxruntime-web",
        "1.30.0",
        "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ==",
        "MIT, Copyright (c) Microsoft Corporation: https://github.com/microsoft/onnxruntime/blob/main/LICENSE",
        {
            "dist/ort.wasm.bundle.min.mjs": "ort/ort.wasm.bundle.min.mjs",
            "dist/ort-wasm-simd-threaded.mjs": "ort/ort-wasm-simd-threaded.mjs",
            "dist/ort-wasm-simd-threaded.wasm": "ort/ort-wasm-simd-threaded.wasm",
        },
    ),
    Package(
        "@litertjs/core",
        "2.5.3",
        "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
        "Apache-2.0, Copyright Google LLC: https://github.com/google-ai-edge/LiteRT/blob/main/LICENSE",
        {
            "dist/index.js": "litert/index.js",
            **_wasm("internal"),
            **_wasm("compat_internal"),
            **_wasm("threaded_internal"),
        },
    ),
    Package(
        "@litertjs/wasm-utils",
        "2.5.3",
        "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
        "Apache-2.0, Copyright Google LLC: https://github.com/google-ai-edge/LiteRT/blob/main/LICENSE",
        {"dist/index.js": "wasm-utils/index.js"},
    ),
)
VERSIONS = {package.name: package.version for package in PACKAGES}
NAMES = tuple(target for package in PACKAGES for target in package.files.values())


def home() -> Path:
    """`$MOBILEZOO_BROWSER`, or a folder below the user's data."""
    return folder_of("browser", ENVIRONMENT)


def find_assets() -> Path:
    """Folder of the runtimes, of exactly these versions. Raises DeviceError with the command that prepares it."""
    root = home()
    try:
        known = mapping(read_json(root / STAMP), STAMP)
    except ConfigError:
        raise DeviceError(f"no browser runtimes below {str(root)!r}: {SETUP_LINE}") from None
    if known.get("versions") != VERSIONS or not all((root / name).is_file() for name in NAMES):
        raise DeviceError(f"the browser runtimes below {str(root)!r} are of other versions: {SETUP_LINE}")
    return root


def for_workers(root: Path) -> dict[str, bytes]:
    """LiteRT.js as a worker can import it, by the name it is served under: import maps hold for pages only.

    Raises:
        DeviceError: it does not import its helper as these versions do.
    """
    name, helper = "litert/index.js", b'from "@litertjs/wasm-utils"'
    text = (root / name).read_bytes()
    if text.count(helper) != 1:
        raise DeviceError(f"{str(root / name)!r} is not what was unpacked: {SETUP_LINE}")
    return {name: text.replace(helper, b'from "../wasm-utils/index.js"')}


def set_up(on_message: OnMessage = print, force: bool = False) -> Path:
    """Fetches, checks and unpacks the JavaScript runtimes; complete ones are only verified.

    Args:
        on_message: called with a line per step.
        force: fetch again even if they are complete.

    Returns:
        The folder of the runtimes.

    Raises:
        DeviceError: a package cannot be fetched or differs from the published one.
    """
    if not force and (known := _whole()) is not None:
        on_message(f"browser: already prepared in {known}, every file as it was unpacked")
        return known
    target = home()
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=".browser.", dir=target.parent))
    try:
        for package in PACKAGES:
            on_message(f"browser: fetching {package.name} {package.version}")
            unpack(fetch(package, stage), package, stage)
        hashes = {name: sha256_of(stage / name) for name in NAMES}
        write_text(stage / "LICENSES.txt", "".join(f"{p.name} {p.version}: {p.license}\n" for p in PACKAGES))
        write_text(stage / STAMP, json.dumps({"versions": VERSIONS, "sha256": hashes}, indent=1) + "\n")
        if target.exists():
            shutil.rmtree(target)
        stage.rename(target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    on_message(f"browser: ready in {target}")
    return target


def fetch(package: Package, folder: Path) -> Path:
    """Downloads a package's archive and verifies its SHA-512.

    Args:
        package: name, version and checksum.
        folder: existing folder for the archive.

    Raises:
        DeviceError: it cannot be downloaded, or the checksum differs.
    """
    archive = _by_npm(package, folder) if shutil.which("npm") else _by_https(package, folder)
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != package.sha512:
        raise DeviceError(f"{package.name} {package.version}: the archive's SHA-512 is not the published one: {found}")
    return archive


def unpack(archive: Path, package: Package, root: Path) -> None:
    """Takes the package's files out of its archive, then deletes the archive.

    Args:
        archive: gzipped tar of npm.
        package: names the files.
        root: folder that the files are written below.

    Raises:
        DeviceError: the archive lacks one of the files.
    """
    with tarfile.open(archive) as tar:
        for name, target in package.files.items():
            try:
                member = tar.extractfile(f"package/{name}")
            except KeyError:
                member = None
            if member is None:
                raise DeviceError(f"{package.name} {package.version} holds no {name}")
            path = root / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.read())
    archive.unlink()


def _whole() -> Path | None:
    try:
        root = find_assets()
    except DeviceError:
        return None
    known = read_json(root / STAMP).get("sha256", {})
    return root if all(sha256_of(root / name) == known.get(name) for name in NAMES) else None


def _by_npm(package: Package, folder: Path) -> Path:
    command = ["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    found = folder / f"{package.name.lstrip('@').replace('/', '-')}-{package.version}.tgz"
    if done.returncode != 0 or not found.is_file():
        lines = [line for line in (done.stderr or done.stdout).strip().splitlines() if line.strip()]
        raise DeviceError(f"`{' '.join(command)}` failed: {lines[-1] if lines else done.returncode}")
    return found


def _by_https(package: Package, folder: Path) -> Path:
    base = package.name.rpartition("/")[2]
    url = f"https://registry.npmjs.org/{package.name}/-/{base}-{package.version}.tgz"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            data = answer.read(LIMIT_BYTES)
    except OSError as error:
        raise DeviceError(f"cannot download {url}: {error}") from None
    path = folder / f"{base}.tgz"
    path.write_bytes(data)
    return path
