"""Where the emulator lives on disk and how its programs are called."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from mobilezoo.config import Record
from mobilezoo.errors import DeviceError
from mobilezoo.installed import folder_of, read_stamp
from mobilezoo.workers import bound, left_s

ENVIRONMENT = "MOBILEZOO_EMULATOR"
NATIVE = Path(__file__).parent / "native"
SETUP_LINE = "run `mobilezoo device setup emulator` (Debian or Ubuntu on x86-64, no root needed)"


class Installed(Record):
    """Versions that the set-up installed; written last, so that its presence means a complete emulator."""

    qemu: str
    llvm: str
    """Version; cycles of different versions must not be compared."""
    llvm_suffix: str
    litert: str
    sources_sha256: str
    """Hash of the C sources that were compiled."""


@dataclass(frozen=True)
class Emulator:
    """A prepared emulator below `root`."""

    root: Path
    installed: Installed

    def tool(self, name: str) -> str:
        """Path of an unpacked program."""
        return str(self.root / "tools" / "usr" / "bin" / name)

    def environment(self) -> dict[str, str]:
        """Process environment in which unpacked programs find their libraries."""
        return tool_environment(self.root)

    def call(self, command: list[str], stdin: str = "", limit_s: float = 1800.0) -> subprocess.CompletedProcess[str]:
        """Runs an unpacked program to its end.

        Args:
            command: the program and its arguments.
            stdin: text for its standard input.
            limit_s: seconds until it is killed, see `mobilezoo.workers.within`.

        Returns:
            The ended process, whatever its exit status.

        Raises:
            DeviceError: it cannot be started, or takes longer than `limit_s`.
        """
        limit = left_s(limit_s)
        try:
            return subprocess.run(
                bound(command),
                input=stdin,
                capture_output=True,
                text=True,
                timeout=limit,
                env=self.environment(),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeviceError(f"{Path(command[0]).name} gave no answer for {limit:.0f} s") from None
        except OSError as error:
            raise DeviceError(f"{command[0]}: {error.strerror or error}: {SETUP_LINE}") from None


def home() -> Path:
    """`$MOBILEZOO_EMULATOR`, or a folder below the user's data."""
    return folder_of("emulator", ENVIRONMENT)


def tool_environment(root: Path) -> dict[str, str]:
    """This process's environment with the unpacked programs and libraries first."""
    tools = root / "tools" / "usr"
    path = os.pathsep.join([str(tools / "bin"), os.environ.get("PATH", "/usr/bin:/bin")])
    return {**os.environ, "PATH": path, "LD_LIBRARY_PATH": str(tools / "lib" / "x86_64-linux-gnu"), "LC_ALL": "C"}


def find_emulator(root: Path | None = None) -> Emulator:
    """Returns the prepared emulator. Raises DeviceError, with the command that prepares it, if there is none."""
    root = root or home()
    installed = read_stamp(Installed, root, "emulator", SETUP_LINE)
    return Emulator(root, installed)
