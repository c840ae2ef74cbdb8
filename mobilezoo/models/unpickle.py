"""A weights file's content, read without running any code in it."""

import argparse
import codecs
import pickle
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError

from mobilezoo.errors import CheckpointError, printable, shortened

_NUMPY_SCALAR: Any = np.float64(0).__reduce__()[0]
REFUSED = re.compile(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) (\S+)")
"""How torch names what it will not unpickle."""

HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(getattr(np.dtypes, name) for name in ("Float64DType", "Float32DType", "Int64DType", "BoolDType")),
    *((_NUMPY_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    codecs.encode,
]
"""Plain values that authors save beside the weights: parsed options, and scores as numpy scalars."""
DAMAGED = (
    *(SafetensorError, RuntimeError, EOFError, OSError, zipfile.BadZipFile, struct.error),
    *(ValueError, LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, MemoryError),
)
"""What readers raise on bytes that are no weights."""


def read_content(file: Path) -> Any:
    """What a .safetensors, .pth, .pt, .pth.tar, .ckpt or .bin file holds, on the CPU. Raises CheckpointError."""
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(file)
        with torch.serialization.safe_globals(HARMLESS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = REFUSED.search(str(error))
        if refused:
            raise CheckpointError(
                f"{str(file)!r} holds more than weights ({_shown(refused[1])}) and loading it could run code: "
                "ask its author for safetensors or a plain state dict"
            ) from None
        raise CheckpointError(f"{str(file)!r} is damaged or no checkpoint: not a pickle of weights") from None
    except DAMAGED as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{str(file)!r} is damaged or no checkpoint: {_shown(first)}") from None


def _shown(text: str) -> str:
    """What a file says, fit for a terminal."""
    return shortened(printable(text), 300)
