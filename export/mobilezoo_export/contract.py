"""The contracts of an export target: `Exporter` writes a file and describes it, `Runner` runs it.

Shapes: a batch is float32 NCHW, preprocessed as the model expects; logits are float32 (batch, classes). Exporters and
runners convert batches to the layout and type of the file's input (NHWC, uint8, int8).
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
    FileMetadata,
    Limits,
    OperatorProfile,
    Reading,
    Runtime,
    TensorSpec,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from mobilezoo_export.anatomy.graph import Graph


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
    """Whether the time of `invoke` is that of a device; false for Core ML's program check."""

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

    def reading(self) -> Reading | None:
        """Report which operators the runtime's unit takes; None where it does not report them."""
        return None

    def run(self, batch: "np.ndarray") -> "np.ndarray":
        """Logits (n, classes) of any number of float32 NCHW images."""
        import numpy as np

        from mobilezoo_export.feeding import pieces, rows

        size, answers = self.input.shape[0], []
        for piece, images in pieces(batch, size):
            self.prepare(piece)
            self.invoke()
            answers.append(rows(self.output(), size)[:images])
        return np.concatenate(answers)


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
    passes: ClassVar[tuple[str, ...]] = ()
    """Graph passes of its own that `options.without` may leave out."""
    calibrated: ClassVar[tuple[str, ...]] = ()
    """Precisions that need calibration images."""
    proof_images: ClassVar[int | None] = None
    """Most images that a file is compared on, where its runtime takes seconds for one; None: all."""
    half_arithmetic: ClassVar[tuple[str, ...]] = ()
    """Precisions whose files compute in half precision on phones, though not on every machine."""
    runtime: ClassVar[Runtime | None] = None
    """What times its files on this machine, if anything does."""
    timed_by: ClassVar[str] = ""
    """Where else its files are timed, for the message that nothing here does."""
    limits: ClassVar[Limits] = Limits()

    def is_half_on_arm(self, path: Path) -> bool:
        """Whether ARM cores compute a file, or a part of it, in half precision where this machine may not.

        Args:
            path: the exported file.
        """
        return False

    def changing_passes(self, model: "nn.Module", spec: ExportSpec) -> tuple[str, ...]:
        """Graph passes of the target's own that change a prepared network; `options.without` may name them.

        Args:
            model: the prepared network.
            spec: input and options of the file.
        """
        return ()

    @abstractmethod
    def open(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        """Load a file of this target in its own runtime.

        Args:
            path: the exported file.
            threads: threads that the runtime may use.
            record: the file's record, which states its input; None: the input is derived from the file alone.

        Raises:
            ExportError: the file is damaged.
            MissingToolError: the runtime is not installed.
        """

    def open_exact(self, path: Path, threads: int, record: Artifact | None) -> Runner:
        """Load a file as `open` does, for its answers instead of its speed: without what only this host's kernels do.

        Args:
            path: the exported file.
            threads: threads that the runtime may use.
            record: the file's record; None: the input is derived from the file alone.
        """
        return self.open(path, threads, record)

    def reading(self, path: Path) -> Reading | None:
        """List a file's operators and what its delegate takes; None for a format without a reader."""
        return None

    def graph(self, path: Path) -> "Graph | None":
        """Read a file's main graph without running it, whoever made it; None for a format without a reader.

        Called in a process of its own: a damaged file may raise anything.

        Args:
            path: the file.

        Raises:
            ExportError: the file is of another kind, or damaged.
        """
        return None

    def read_metadata_text(self, path: Path) -> str:
        """Return the metadata that `export` wrote into a file, as JSON; empty for a file without it."""
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

        Raises:
            ExportError: the target has no operator profiler, or the file cannot be profiled.
        """
        raise ExportError(f"no per-operator times for {self.target!r} files on this machine")

    def read_file_metadata(self, path: Path) -> FileMetadata:
        """Read the metadata that other tools wrote into a file: preprocessing, labels, kind of output.

        Raises ExportError for damaged metadata and for inputs that are not supported (BGR images).
        """
        return FileMetadata()

    def write_fixed(self, path: Path, shape: tuple[int, ...], out: Path) -> None:
        """Write a copy of a file that leaves sizes open, which takes nothing but this shape.

        Args:
            path: the file; it has one input.
            shape: of its input tensor, in its own layout.
            out: where the copy goes.

        Raises ExportError for a target whose files cannot be changed so.
        """
        raise ExportError(f"{path.name!r}: the sizes of {self.target!r} files cannot be fixed: export it with its size")

    def require(self) -> None:
        """Raise MissingToolError unless the toolchain is installed."""
        for module in self.modules:
            require(module, self.extra)

    def unsupported_reason(self, model: "nn.Module", spec: ExportSpec) -> str | None:
        """Return why a model cannot be exported as `spec` describes, or None if it can.

        Args:
            model: traced, folded graph that takes `spec.shape`.
            spec: input, precision and options of the file.

        Raises:
            MissingToolError: the target's toolchain is not installed.
        """
        self.require()
        if spec.precision not in self.precisions:
            return f"{self.target} has no precision {spec.precision!r}: choose from {', '.join(self.precisions)}"
        if foreign := [name for name in spec.options.without if name not in self.passes]:
            own = f"it has {', '.join(self.passes)}" if self.passes else "it has none, leave without out"
            return f"{self.target} has no graph pass {foreign[0]!r} of its own to do without: {own}"
        if spec.options.classifier and spec.task != "classify":
            return f"a network that does {spec.task} is no classifier: leave classifier out"
        if spec.options.flexible != "none" and spec.task != "classify":
            return f"a file that does {spec.task} has one size: leave flexible out"
        if spec.options.softmax and spec.task == "detect":
            return "a detector's output holds probabilities already: leave softmax out"
        return None

    @abstractmethod
    def export(
        self, model: "nn.Module", spec: ExportSpec, path: Path, calibration: Sequence["np.ndarray"] = ()
    ) -> list[str]:
        """Convert a model and write the file.

        Args:
            model: traced, folded graph that takes `spec.shape`.
            spec: input, precision and options of the file.
            path: file to write.
            calibration: preprocessed float32 NCHW batches; read for precisions named in `calibrated` only.

        Returns:
            Warnings for the user.

        Raises:
            ExportError: the model cannot be converted, or the calibration images do not fit.
        """

    def input_spec(self, spec: ExportSpec) -> InputSpec:
        """Shape, layout and type of the input that the written file takes."""
        return InputSpec(shape=spec.shape, dtype=spec.dtype)

    def borders(self, path: Path) -> Borders:
        """Read the scales and zero points that a written file declares for its input and output."""
        return Borders()

    def why_not_runnable(self, spec: ExportSpec) -> str | None:
        """Return why a file of this target cannot be run on this machine, or None if it can."""
        return None
