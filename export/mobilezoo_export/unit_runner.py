"""A file that another process computes on a unit of a phone: a crash there is one line here.

The child answers `open` with the file's inputs and outputs and with what the unit takes of it, and `invoke` with the
values of the chosen output. Values are passed as `.npy` files in a scratch folder.
"""

import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing
from mobilezoo.errors import DeviceError
from mobilezoo.scratch import temporary_folder
from mobilezoo.workers import Worker, WorkerEndedError
from mobilezoo_export.contract import Runner
from mobilezoo_export.feeding import dequantized, image_input
from mobilezoo_export.records import Reading, TensorSpec

OPEN_LIMIT_S = 900.0
"""Compiling a network for a unit, on a busy machine."""
INVOKE_LIMIT_S = 300.0


class UnitRunner(Runner):
    """One file in a process of its own. `close` ends the process.

    Args:
        where: the unit, for messages: `the GPU`.
        command: starts the child.
        environment: variables of the child.
        path: the file.
        record: its record; None: the input is derived from the file alone.
        options: further fields of `open`.

    Raises:
        DeviceError: the unit does not take the file, or the process ended.
    """

    measurable = False

    def __init__(
        self,
        where: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        path: Path,
        record: Artifact | None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._where, self._path = where, path
        self._held = ExitStack()
        try:
            self._folder = self._held.enter_context(temporary_folder("unit"))
            self._worker = self._held.enter_context(Worker(command, {**environment, "TMPDIR": str(self._folder)}))
            described = record.model_dump(mode="json") if record else None
            request = {"op": "open", "path": str(path), "record": described}
            self._opened = self._ask({**request, **(options or {})}, OPEN_LIMIT_S)
        except BaseException:
            self._held.close()
            raise
        self.inputs = tuple(TensorSpec.parse(one, "input") for one in self._opened["inputs"])
        self.outputs = tuple(TensorSpec.parse(one, "output") for one in self._opened["outputs"])
        self.output_index = record.output_index if record else 0
        self.input: InputSpec = record.input if record else image_input(self.inputs, "NCHW")
        pixels = self.input.dtype == "uint8" and self.input.quantization is None
        self.pixels: Preprocessing | None = record.preprocessing if record and pixels else None
        weakref.finalize(self, self._held.close)  # runners of exported files are not closed
        self._fed: list[np.ndarray] = []

    @property
    def runtime(self) -> str:
        """The runtime and the unit."""
        return str(self._opened["runtime"])

    def runtime_info(self) -> dict[str, str]:
        """Arithmetic of the unit, `float32` or `half`."""
        return {"arithmetic": str(self._opened["arithmetic"])}

    def reading(self) -> Reading:
        """What the unit takes of the file, and what it leaves to the CPU."""
        found = self._opened
        outside = None if found["outside"] is None else Counter[str](found["outside"])
        return Reading(Counter(found["ops"]), found["partitions"], outside, notes=tuple(found["notes"]))

    def feed(self, values: Sequence[np.ndarray]) -> None:
        """Take a value for every input."""
        self._fed = [np.ascontiguousarray(value) for value in values]

    def invoke(self) -> None:
        """Compute what was fed. Raises DeviceError."""
        for index, value in enumerate(self._fed):
            np.save(self._folder / f"in{index}.npy", value)
        request = {"op": "invoke", "folder": str(self._folder), "inputs": len(self._fed), "output": self.output_index}
        self._ask(request, INVOKE_LIMIT_S)

    def output(self) -> np.ndarray:
        """Values of the last `invoke`, float32."""
        values = np.load(self._folder / "out.npy")
        return dequantized(values, self.outputs[self.output_index].quantization)

    def close(self) -> None:
        """End the process; a runner that is closed stays so."""
        self._held.close()

    def _ask(self, request: dict[str, Any], limit_s: float) -> dict[str, Any]:
        try:
            reply = self._worker.call(request, limit_s)
        except WorkerEndedError as error:
            raise DeviceError(f"{self._path.name} does not run on {self._where}: its process {error}") from None
        if "error" in reply:
            raise DeviceError(f"{self._path.name} does not run on {self._where}: {reply['error']}")
        return reply
