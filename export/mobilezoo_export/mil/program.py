"""Load a saved ML Program and compute it."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mobilezoo.errors import ExportError, first_line
from mobilezoo_export.mil.arguments import OPERATIONS, Arguments

Observer = Callable[[Any, str, torch.Tensor], None]
"""Called with (operation, output name, value) as each value is computed."""

CLASSIFY = "classify"
"""Operation that attaches class names to probabilities and computes nothing."""

for _module in ("elementwise", "layers", "shapes"):
    importlib.import_module(f"mobilezoo_export.mil.{_module}")


class Program:
    """One function of an ML Program.

    Values declared float16 are rounded to half after each operation (`half_storage`), as a device stores them;
    arithmetic itself is float32, as accelerators accumulate wider than they store.
    """

    def __init__(self, model: Any, *, half_storage: bool = True) -> None:
        """Read the main function of a program.

        Args:
            model: a coremltools MLModel that holds an ML Program.
            half_storage: round float16 values to half precision after each operation.

        Raises:
            ExportError: the model is no ML Program, or has operations that are not implemented here.
        """
        from coremltools.converters.mil.frontend.milproto.load import load
        from coremltools.converters.mil.mil import types

        spec = model.get_spec()
        if spec.WhichOneof("Type") != "mlProgram":
            raise ExportError("the Core ML model is no ML Program: export it again with mobilezoo")
        functions = load(spec, spec.specificationVersion, model.weights_dir).functions
        self.function = functions["main"]
        self.input_shape = usual_shape(spec.description.input[0].type)
        """Shape of the input; open sizes have their usual value."""
        self._half = types.fp16 if half_storage else None
        self._constants: dict[Any, Any] = {}
        self._sizes: dict[Any, int] = {}
        unknown = sorted({o.op_type for o in self.operations() if o.op_type not in OPERATIONS})
        if unknown:
            raise ExportError(f"program check does not know the operation {', '.join(unknown)}")

    def operations(self) -> Iterator[Any]:
        """Yield the operations that compute, in order; constants and `classify` are left out."""
        for item in self.function.operations:
            if item.op_type not in ("const", CLASSIFY) and not item.op_type.startswith("constexpr_"):
                yield item

    @property
    def input_name(self) -> str:
        """Name of the first input."""
        return next(iter(self.function.inputs))

    def run(self, image: np.ndarray, observe: Observer | None = None, output: int = 0) -> np.ndarray:
        """Compute one output, or a classifier's probabilities.

        Args:
            image: input of `input_shape`, or of other sizes where the program leaves them open.
            observe: called with (operation, name, value) as each value is computed; operation is None for the input.
            output: index of the output.

        Raises:
            ExportError: a value has another shape than declared.
            NotImplementedError: an operation has a mode that Core ML does not define.
        """
        variable = self.function.inputs[self.input_name]
        values: dict[Any, Any] = {variable: self._stored(variable, torch.from_numpy(np.ascontiguousarray(image)))}
        self._sizes = {}
        self._check_shape(variable, values[variable])
        if observe:
            observe(None, self.input_name, values[variable])
        with torch.no_grad():
            for item in self.operations():
                self._compute(item, values, observe)
        last = self.function.outputs[output]
        if last.op is not None and last.op.op_type == CLASSIFY:
            last = last.op.inputs["probabilities"]
        result: np.ndarray = values[last].numpy()
        return result

    def _compute(self, item: Any, values: dict[Any, Any], observe: Observer | None) -> None:
        def lookup(name: str) -> Any:
            found = item.inputs.get(name)
            if isinstance(found, list | tuple):
                return [self._value(variable, values) for variable in found]
            return None if found is None else self._value(found, values)

        computed = OPERATIONS[item.op_type](Arguments(lookup, item.name))
        outputs = computed if isinstance(computed, tuple | list) else (computed,)
        for variable, tensor in zip(item.outputs, outputs, strict=True):
            self._check_shape(variable, tensor)
            values[variable] = self._stored(variable, tensor)
            if observe:
                observe(item, variable.name, values[variable])

    def _check_shape(self, variable: Any, tensor: torch.Tensor) -> None:
        """Compare a shape with the declared one; sizes are numbers or symbolic terms, equal terms have equal sizes."""
        declared = tuple(variable.shape)
        known = [
            self._sizes.setdefault(size, actual) if hasattr(size, "free_symbols") else int(size)
            for size, actual in zip(declared, tensor.shape, strict=False)
        ]
        if len(declared) != tensor.dim() or known != list(tensor.shape):
            raise ExportError(f"{variable.name} is declared as {declared} but computes {tuple(tensor.shape)}")

    def _stored(self, variable: Any, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point():
            return tensor
        if self._half is not None and variable.dtype == self._half:
            tensor = tensor.to(torch.float16)
        return tensor.float()

    def _value(self, variable: Any, values: dict[Any, Any]) -> Any:
        if variable in values:
            return values[variable]
        if variable not in self._constants:
            # Compressed weights are decoded by coremltools itself.
            raw = variable.val if variable.val is not None else variable.op.materialized_val_inference()
            is_weights = isinstance(raw, np.ndarray) and raw.dtype.kind == "f"
            self._constants[variable] = torch.from_numpy(np.ascontiguousarray(raw)).float() if is_weights else raw
        return self._constants[variable]


def usual_shape(kind: Any) -> tuple[int, ...]:
    """Return the input's shape in a package's description, NCHW; images are grey or RGB."""
    if kind.WhichOneof("Type") == "imageType":
        grey = kind.imageType.colorSpace in (kind.imageType.GRAYSCALE, kind.imageType.GRAYSCALE_FLOAT16)
        return 1, 1 if grey else 3, int(kind.imageType.height), int(kind.imageType.width)
    return tuple(int(size) for size in kind.multiArrayType.shape)


def load_program(path: Path, *, half_storage: bool = True) -> Program:
    """Read the ML Program of an `.mlpackage`.

    Args:
        path: the package.
        half_storage: round float16 values to half precision after each operation.

    Raises:
        ExportError: the package is damaged, or has operations that are not implemented here.
    """
    import coremltools as ct

    try:
        model = ct.models.MLModel(str(path), skip_model_load=True)
        return Program(model, half_storage=half_storage)
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(f"{path.name!r} cannot be read as a Core ML package: {first_line(error, 200)}") from error
