"""A file that computes on an emulated core, with the kernels that the core's instructions allow.

A phone's kernels are not this machine's: half precision, dot products and block sizes change what a file computes. Only
the answers are of interest here; nothing is counted or timed.
"""

from collections.abc import Sequence

import numpy as np

from mobilezoo.errors import DeviceError
from mobilezoo.scratch import temporary_folder
from mobilezoo_export import Runner
from mobilezoo_export.feeding import dequantized, pieces, rows
from mobilezoo_export.registry import start_runner
from mobilezoo_latency.contract import ArtifactFile
from mobilezoo_latency.emulator.cores import EmulatedConfig
from mobilezoo_latency.emulator.counting import run_on
from mobilezoo_latency.emulator.layout import Emulator
from mobilezoo_latency.emulator.runtimes import find_runtime


class EmulatedRunner(Runner):
    """One file on one emulated core; this machine's runtime only describes its inputs and outputs.

    Args:
        emulator: the prepared emulator.
        core: which core.
        artifact: the file and its record.

    Raises:
        DeviceError: the file takes several inputs, or its runtime is not prepared.
    """

    measurable = False

    def __init__(self, emulator: Emulator, core: EmulatedConfig, artifact: ArtifactFile) -> None:
        path = artifact.path
        here = start_runner(path, artifact.record)
        if len(here.inputs) != 1:
            raise DeviceError(f"{path.name} takes {len(here.inputs)} inputs: the emulated {core.name} feeds one")
        self.inputs, self.outputs, self.output_index = here.inputs, here.outputs, here.output_index
        self.input, self.pixels = here.input, here.pixels
        self._emulator, self._core, self._path = emulator, core, path
        self._runtime = find_runtime(emulator, artifact.record.target)
        self._fed = self._answer = np.empty(0)

    @property
    def runtime(self) -> str:
        """The runtime's version and the core."""
        return f"{self._runtime.name} on an emulated {self._core.name}"

    def feed(self, values: Sequence[np.ndarray]) -> None:
        """Take the one input."""
        (self._fed,) = values

    def invoke(self) -> None:
        """Compute the one input that was fed, in a process of its own."""
        (self._answer,) = self._compute([self._fed])

    def output(self) -> np.ndarray:
        """Logits of the last `invoke`, float32."""
        return self._answer

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of any number of images, all in one process: loading costs more than computing."""
        size, fed, counts = self.input.shape[0], [], []
        for piece, images in pieces(batch, size):
            self.prepare(piece)
            fed.append(self._fed)
            counts.append(images)
        answers = [rows(answer, size) for answer in self._compute(fed)]
        return np.concatenate([answer[:images] for answer, images in zip(answers, counts, strict=True)])

    def _compute(self, fed: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The chosen output of each input. Raises DeviceError."""
        out = self.outputs[self.output_index]
        with temporary_folder("emulated") as folder:
            inputs, outputs = folder / "inputs", folder / "outputs"
            inputs.write_bytes(b"".join(np.ascontiguousarray(values).tobytes() for values in fed))
            action = ["compute", str(inputs), str(outputs), str(self.output_index)]
            run_on(self._emulator, self._core, self._path, action, target=self._runtime.runtime.target)
            values = np.fromfile(outputs, dtype=np.dtype(out.dtype))
        if values.size != len(fed) * int(np.prod(out.shape)):
            due = f"{len(fed)} times {out.shape}"
            raise DeviceError(f"{self._path.name} gives {values.size} values on the emulated core: {due} were due")
        return [dequantized(one, out.quantization) for one in values.reshape(len(fed), *out.shape)]
