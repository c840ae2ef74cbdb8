"""What a device is. A new kind is one file, one line in `registry.py`, one YAML, one subclass of the conformance test.

Kinds (`DeviceInfo.kind`) are never mixed: a host, a phone, a browser and an emulated core give different numbers.
"""

import os
import shlex
from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from mobilezoo.artifacts import Artifact, DeviceInfo, Estimate, LatencyReport, Protocol
from mobilezoo.config import Record
from mobilezoo.errors import DeviceError, printable

NAME_LIMIT = 120
"""Characters of a name that a device gives itself."""
NAME = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]{0,100}$"
"""What a user calls something: one short line of printable text."""
SENTENCE = NAME.replace("100", "500")


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
        """Key → what it is, of each value that would start a program of the config's choice."""
        return {}


@dataclass(frozen=True)
class ArtifactFile:
    """An exported file and its record."""

    path: Path
    record: Artifact


class Device(ABC):
    """Measures artifacts. `measure` takes one measurement; repeating noisy ones and caching are done around it."""

    Config: ClassVar[type[DeviceConfig]] = DeviceConfig

    def __init__(self, config: DeviceConfig) -> None:
        self.config = config

    def for_artifact(self, artifact: ArtifactFile) -> "Device":
        """The device that really measures this artifact: itself, unless it stands for several."""
        return self

    def protocol_for(self, protocol: Protocol) -> Protocol:
        """The protocol that is really followed: the one asked for, unless the device does not time at all."""
        return protocol

    def refresh(self, report: LatencyReport) -> LatencyReport:
        """A kept report brought up to date where it holds more than was measured."""
        return report

    def hint(self) -> str:
        """What `mobilezoo device check` says of a device that is ready."""
        info = self.describe()
        return ", ".join(part for part in (info.cpu, info.os, info.runtime) if part)

    def close(self) -> None:  # noqa: B027 - most devices hold nothing
        """Let go of what was opened to measure; the device can be used again."""

    @abstractmethod
    def check(self) -> None:
        """Raise DeviceError or MissingToolError, with the remedy, unless measuring can start now."""

    @abstractmethod
    def describe(self) -> DeviceInfo:
        """What results are filed under. The same device gives an equal answer every time."""

    @abstractmethod
    def measure(self, artifact: ArtifactFile, protocol: Protocol) -> LatencyReport:
        """One measurement with all raw samples. Raises DeviceError."""


class LatencySource(ABC):
    """Gives a latency without measuring it."""

    @abstractmethod
    def predict(self, artifact: str | Path) -> Estimate:
        """Latency of an exported file with its error. Raises DeviceError."""


def load_artifact(path: str | Path) -> ArtifactFile:
    """A file with its record, or with what it tells of itself. Raises MobilezooError where it is not the record's."""
    from mobilezoo_export import open_artifact

    return ArtifactFile(Path(os.path.realpath(Path(path).expanduser())), open_artifact(path))


def unproven(record: Artifact) -> str | None:
    """Why nobody compared a file with PyTorch, `not proven here` for those that others made; None where it was done."""
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
    """A name as a device tells it: on one line, without control characters, cut where it is no name any more."""
    return printable(" ".join(text[: 4 * NAME_LIMIT].split()))[:NAME_LIMIT].strip()


def utc_now() -> str:
    """ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
