"""The device contract. A new kind is a file, a line in `registry.py`, a YAML, and a subclass of the conformance test.

Kinds (`DeviceInfo.kind`) are never mixed: a host, a phone, a browser and an emulated core give different numbers.
"""

import os
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import AfterValidator, Field

from mobilezoo.artifacts import Artifact
from mobilezoo.config import Record
from mobilezoo.errors import DeviceError, printable
from mobilezoo.latency_report import DeviceInfo, Estimate, LatencyReport, Protocol

if TYPE_CHECKING:
    from mobilezoo_export import Runner

NAME_LIMIT = 120
"""Longest name that a device reports of itself, in characters."""
NAME = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,100}$"
"""Pattern of a name given by the user: one line of at most 100 printable characters."""
SENTENCE = NAME.replace("100", "500")
"""Pattern of a description: one line of at most 500 printable characters."""


def _splits(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"a command line as a shell reads it: {str(error).lower()}") from None
    if text and not words:
        raise ValueError("a command line, or nothing at all")
    return text


Command = Annotated[str, Field(pattern=SENTENCE), AfterValidator(_splits)]
"""A program and its arguments, quoted as in a shell; empty for none."""


class DeviceConfig(Record):
    """One YAML of `configs/devices/`."""

    type: str = Field(description="which device class measures; a key of the registry")
    name: str = Field(default="", description="taken from the file name; never written in a YAML")
    description: str = Field(default="", pattern=SENTENCE, description="one line for listings")

    def commands(self) -> dict[str, str]:
        """Maps each key whose value starts a program to the words that name it in an error."""
        return {}


@dataclass(frozen=True)
class ArtifactFile:
    """An exported file and its record."""

    path: Path
    record: Artifact


class Device(ABC):
    """Measures artifacts. `measure` takes one measurement; `profile` repeats noisy ones and caches results."""

    Config: ClassVar[type[DeviceConfig]] = DeviceConfig

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config

    def for_artifact(self, artifact: ArtifactFile) -> "Device":
        """Returns the device that measures this artifact: itself, unless it stands for several. Raises DeviceError."""
        return self

    def protocol_for(self, protocol: Protocol) -> Protocol:
        """Returns the protocol to follow: the requested one, unless the device counts instead of timing."""
        return protocol

    def refresh(self, report: LatencyReport) -> LatencyReport:
        """Returns a cached report with whatever depends on the present calibration computed anew."""
        return report

    def open_runner(self, artifact: ArtifactFile) -> "Runner":
        """The file loaded where this device computes, to compare its answers. Raises DeviceError where it only times.

        Closing the device ends what the runner needs.
        """
        name = self.config.name or self.config.type
        raise DeviceError(f"{name}: files are timed there, and their answers do not come back")

    def hint(self) -> str:
        """Returns the line that `mobilezoo device check` prints for a device that is ready."""
        info = self.describe()
        return ", ".join(part for part in (info.cpu, info.os, info.runtime) if part)

    def close(self) -> None:  # noqa: B027 - most devices hold nothing
        """Release what was opened to measure; the device can be used again."""

    @abstractmethod
    def check(self) -> None:
        """Raise DeviceError or MissingToolError, with the remedy, unless measuring can start now."""

    @abstractmethod
    def describe(self) -> DeviceInfo:
        """Identity of the device in the results database; equal for the same device every time. Raises DeviceError."""

    @abstractmethod
    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """Measure an artifact once.

        Args:
            artifact: the exported file and its record, as accepted by `for_artifact`.
            protocol: warm-up, number of samples, duration and restarts.

        Returns:
            A report with all raw samples in ms, or with counts and an estimate.

        Raises:
            DeviceError: the device is gone, or the runtime fails or uses something else than requested.
        """


class LatencySource(ABC):
    """Estimates a latency without measuring it."""

    @abstractmethod
    def predict(self, artifact: str | Path) -> Estimate:
        """Latency of an exported file with its error. Raises DeviceError."""


def load_artifact(path: str | Path) -> ArtifactFile:
    """A file with its record, or with what its own metadata holds. Raises MobilezooError for no input to time."""
    from mobilezoo_export import open_artifact

    record = open_artifact(path)
    if "resolution" in record.undeclared:
        raise DeviceError(
            f"{record.path!r} leaves the height or width of its input open, and its time hangs on them: "
            "profile it with --resolution HEIGHTxWIDTH"
        )
    return ArtifactFile(Path(os.path.realpath(Path(path).expanduser())), record)


def unproven(record: Artifact) -> str | None:
    """Reason why a file was not compared with PyTorch (`not proven here` for foreign files); None if it was."""
    return None if record.parity is not None else record.why_not_runnable or "not compared with PyTorch"


def refuse_folded(artifact: ArtifactFile) -> None:
    """Raise DeviceError for a network whose zero gammas let the converter drop whole branches."""
    zero = artifact.record.zero_gammas
    if zero:
        raise DeviceError(
            f"{artifact.path.name} has {len(zero)} all-zero norm weights ({zero[0]}, ...): the converter folds their "
            "branches away and the time would lie; export a trained model or randomize its norms (or allow it by "
            "allow_folded / --allow-folded)"
        )


def name_of(text: str) -> str:
    """Cleans a name that a device reports: one line, no control characters, at most NAME_LIMIT characters."""
    return printable(" ".join(text[: 4 * NAME_LIMIT].split()))[:NAME_LIMIT].strip()


def utc_now() -> str:
    """Current time in ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
