"""The contracts of an export target: `Exporter` writes a file and describes it, `Runner` runs it.

Shapes: a batch is float32 NCHW, preprocessed as the model expects; logits are float32 (batch, classes). Exporters turn
that into whatever the file wants (NHWC, uint8, int8), runners do the same for its inputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing
from mobilezoo.errors import ExportError, require
from mobilezoo_export.records import (
    Borders,
    ExportSpec,
    Limits,
    OperatorProfile,
    Reading,
    Runtime,
    TensorSpec,
    Told,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


class Runner(ABC):
    """An exported file, loaded in its own runtime. `feed` (or `prepare`), then `invoke`, is what latency measures."""

    input: InputSpec
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    output_index: int = 0
    """Which of `outputs` is read."""
    pixels: Preprocessing | None = None
    """Set where the file takes raw pixels: batches, which come normalized, are turned back into them."""
    measurable: bool = True
    """Whether the time of `invoke` says anything about a device; false for Core ML's program check."""

    @abstractmethod
    def feed(self, values: "Sequence[np.ndarray]") -> None:
        """Take a value for every input, each in the file's own shape and type."""

    def prepare(self, batch: "np.ndarray") -> None:
        """Take one float32 NCHW batch of exactly the file's batch size; converts layout and type once."""
        from mobilezoo_export.feeding import as_input

        self.feed([as_input(self.to_input(batch), self.input, self.inputs)])

    @abstractmethod
    def invoke(self) -> None:
        """Run the prepared batch once."""

    @abstractmethod
    def output(self) -> "np.ndarray":
        """Logits of the last `invoke`, float32."""

    @property
    @abstractmethod
    def runtime(self) -> str:
        """Name and version of what computes."""

    def to_input(self, batch: "np.ndarray") -> "np.ndarray":
        """A normalized batch in the values that the file takes: float32, or uint8 pixels."""
        if self.pixels is None:
            return batch
        from mobilezoo_export.pixels import to_pixels

        return to_pixels(batch, self.pixels)

    def runtime_info(self) -> dict[str, str]:
        """Report what the runtime uses, as far as it is known: `delegate`, `partitions`, ..., for latency records."""
        return {}

    def run(self, batch: "np.ndarray") -> "np.ndarray":
        """Logits (n, classes) of any number of float32 NCHW images."""
        import numpy as np

        size, pieces = self.input.shape[0], []
        for start in range(0, len(batch), size):
            piece = batch[start : start + size]
            missing = size - len(piece)
            # The file's batch is fixed: the last piece is filled up with copies and cut afterwards.
            padded = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)]) if missing else piece
            self.prepare(np.ascontiguousarray(padded, dtype=np.float32))
            self.invoke()
            answer = np.array(self.output(), dtype=np.float32)
            answer = answer[None] if size == 1 and answer.ndim < 2 else answer  # some leave the batch axis out
            if len(answer) != size:
                raise ExportError(f"{size} images give answers of shape {answer.shape}: one row for each is read here")
            pieces.append(answer[: len(piece)])
        return np.concatenate(pieces)


class Exporter(ABC):
    """One target: how its files are written, run, timed and read.

    Common work (fusing, tracing, parity, naming, atomic writes) is done once around it.
    """

    target: ClassVar[str]
    suffix: ClassVar[str]
    extra: ClassVar[str]
    """Extra of this distribution that installs the toolchain."""
    modules: ClassVar[tuple[str, ...]]
    """Modules that must be importable."""
    packages: ClassVar[tuple[str, ...]]
    """Distributions whose versions the record keeps."""
    precisions: ClassVar[tuple[str, ...]]
    calibrated: ClassVar[tuple[str, ...]] = ()
    """Precisions that need calibration images."""
    runtime: ClassVar[Runtime | None] = None
    """What times its files on this machine, if anything does."""
    timed_by: ClassVar[str] = ""
    """Where else its files are timed, for the message that nothing here does."""
    limits: ClassVar[Limits] = Limits()

    @abstractmethod
    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        """A file of this target in its own runtime. Raises ExportError for a damaged file."""

    def reading(self, path: Path) -> Reading | None:
        """What is in a file that its runtime can load; None for a format that nothing here can read."""
        return None

    def read_metadata_text(self, path: Path) -> str:
        """The metadata that `export` wrote into a file, JSON; empty where there is none."""
        return ""

    @classmethod
    def has_operator_profiler(cls) -> bool:
        """Whether this target implements `profile_operators`."""
        return cls.profile_operators is not Exporter.profile_operators

    def profile_operators(self, path: Path, threads: int) -> OperatorProfile:
        """Time every operator of a file in the target's runtime, fed with noise; called in a process of its own.

        Args:
            path: the exported file.
            threads: threads that the runtime may use.

        Raises ExportError for a target without an operator profiler, or for a file that cannot be profiled.
        """
        raise ExportError(f"no per-operator times for {self.target!r} files on this machine")

    def told_by(self, path: Path) -> Told:
        """What a file that others made says of its input and labels. Raises ExportError for what cannot be done."""
        return Told()

    def require(self) -> None:
        """Raise MissingToolError unless the toolchain is installed."""
        for module in self.modules:
            require(module, self.extra)

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        """Return why this model cannot be exported by `spec`, or None. Raises MissingToolError."""
        self.require()
        if spec.precision not in self.precisions:
            return f"{self.target} has no precision {spec.precision!r}: choose from {', '.join(self.precisions)}"
        return None

    @abstractmethod
    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence["np.ndarray"] = ()
    ) -> list[str]:
        """Write the file; returns warnings. `model` is a traced, folded graph that takes `spec.shape`.

        `calibration` holds float32 NCHW batches for precisions named in `calibrated`. Raises ExportError.
        """

    def input_spec(self, spec: ExportSpec) -> InputSpec:
        """The input the written file takes."""
        return InputSpec(shape=spec.shape, dtype=spec.dtype)

    def borders(self, path: Path) -> Borders:
        """Scales and zero points that the written file declares for its input and output."""
        return Borders()

    def why_not_runnable(self, spec: ExportSpec) -> str | None:
        """Why a file of this target cannot be run on this machine, or None."""
        return None
