"""Official and own checkpoints → a network's weights, safely and key by key.

A published file may hold the state dict itself or keep it under a name; of several, averaged weights win, because that
is what authors evaluate. Pickles are read with weights_only=True: a file with code in it is refused.
"""

import argparse
import codecs
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mobilezoo.artifacts import atomic_write
from mobilezoo.errors import CheckpointError
from mobilezoo.models.base import ModelConfig, family_module

AVERAGED = ("state_dict_ema", "model_ema", "ema", "net_E")
WRAPPERS = ("state_dict", "model", "net", "module")
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
SHOWN = 3
"""How many differing keys an error lists."""


def read_state_dict(path: str | Path, ema: bool = True) -> dict[str, Tensor]:
    """Key → tensor from a .safetensors, .pth, .pt, .pth.tar or .bin file, wrappers and DDP prefixes removed.

    `ema=False` prefers the plain weights where a file holds both. Raises CheckpointError.
    """
    file = Path(path)
    if not file.is_file():
        raise CheckpointError(f"checkpoint not found: {str(path)!r}")
    content = _read(file)
    state = _unwrap(content, (*AVERAGED, *WRAPPERS) if ema else (*WRAPPERS, *AVERAGED))
    if not state:
        found = ", ".join(map(str, list(content)[:SHOWN])) if isinstance(content, Mapping) else type(content).__name__
        raise CheckpointError(f"{str(path)!r} holds no state dict (found: {found})")
    return {_strip(key): value for key, value in state.items()}


def load_checkpoint(
    network: nn.Module, config: ModelConfig, path: str | Path, *, reset_head: bool = False, ema: bool = True
) -> None:
    """Load an official or own file into `network`, strictly; only `num_batches_tracked` may be missing.

    The two heads of a distilled file become their mean in a one-head network: what official inference computes. With
    `reset_head`, a classifier whose class count differs keeps its fresh weights, and a warning says so. Raises
    CheckpointError listing the first keys that differ.
    """
    state = official_to_ours(network, config, read_state_dict(path, ema))
    own = network.state_dict()
    resized = _other_class_count(network, own, state)
    if resized:
        if not reset_head:
            there, here = state[resized[0]].shape[0], own[resized[0]].shape[0]
            raise CheckpointError(
                f"{str(path)!r} has {there} classes, the network {here}: pass reset_head=True (or the same num_classes)"
            )
        warnings.warn(f"{path}: new random classifier, {', '.join(resized)} not loaded", stacklevel=2)
        state = {k: v for k, v in state.items() if k not in resized}
    _compare(own, state, set(resized), config, path)
    network.load_state_dict(state, strict=False)


def load_features(features: nn.Module, whole: nn.Module) -> None:
    """Copy a classifier's weights into its `features_only` form, where timm names some modules otherwise."""
    weights = {_flat(key): value for key, value in whole.state_dict().items()}
    features.load_state_dict({key: weights[_flat(key)] for key in features.state_dict()})


def official_to_ours(network: nn.Module, config: ModelConfig, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official keys renamed to the network's; its own keys pass through unchanged."""
    if set(_weights(state)) == set(_weights(network.state_dict())):
        return state
    renamed: dict[str, Tensor] = family_module(config.family).from_official(state, network)
    return renamed


def convert(official: Path, out: Path, model: str, ema: bool = True) -> Path:
    """Write an official file as safetensors with our keys and its Checkpoint record; returns `out`.

    The class count is the file's own. Raises CheckpointError.
    """
    from safetensors.torch import save_file

    from mobilezoo.artifacts import Checkpoint, save_record, sha256_of
    from mobilezoo.models.registry import create_model, load_model_config

    config = load_model_config(model)
    state = read_state_dict(official, ema)
    network = create_model(config)
    classes = _class_count(network, official_to_ours(network, config, state))
    network = create_model(config, checkpoint=official, num_classes=classes)
    tensors = {k: v.contiguous().clone() for k, v in network.state_dict().items()}
    metadata = {"model": config.name, "num_classes": str(classes), "source": official.name}
    atomic_write(out, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    record = Checkpoint(
        path=out.name,
        sha256=sha256_of(out),
        model=model,
        num_classes=classes,
        resolution=config.resolution,
        preprocessing=config.preprocessing(),
    )
    save_record(out, record)
    return out


def _read(file: Path) -> Any:
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
                f"{str(file)!r} holds more than weights ({refused[1]}) and loading it could run code: "
                "ask its author for safetensors or a plain state dict"
            ) from None
        raise CheckpointError(f"{str(file)!r} is damaged or no checkpoint: not a pickle of weights") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{str(file)!r} is damaged or no checkpoint: {_first_line(error)}") from None


def _unwrap(content: Any, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The innermost mapping of names to tensors."""
    if not isinstance(content, Mapping):
        return {}
    if content and all(isinstance(v, Tensor) for v in content.values()):
        return dict(content)
    for name in names:
        if isinstance(content.get(name), Mapping) and (inner := _unwrap(content[name], names)):
            return inner
    return {}


def _strip(key: str) -> str:
    """Without the prefixes that DDP and torch.compile add."""
    for prefix in ("module.", "_orig_mod."):
        key = key.removeprefix(prefix)
    return key


def _flat(key: str) -> str:
    """The same for `stages.0.conv`, `stages_0.conv` and `model.stages.0.conv`."""
    return key.removeprefix("model.").replace(".", "_")


def _weights(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def _classifier_prefixes(network: nn.Module) -> tuple[str, ...]:
    named = getattr(network, "pretrained_cfg", {}).get("classifier") or ()
    return (named,) if isinstance(named, str) else tuple(named)


def _other_class_count(network: nn.Module, own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Classifier tensors whose number of rows differs from the network's."""
    keys = [f"{prefix}.{kind}" for prefix in _classifier_prefixes(network) for kind in ("weight", "bias")]
    return [k for k in keys if k in own and k in state and own[k].shape[:1] != state[k].shape[:1]]


def _class_count(network: nn.Module, state: Mapping[str, Tensor]) -> int:
    for prefix in _classifier_prefixes(network):
        if f"{prefix}.weight" in state:
            return int(state[f"{prefix}.weight"].shape[0])
    return 1000


def _compare(
    own: Mapping[str, Tensor], state: Mapping[str, Tensor], optional: set[str], config: ModelConfig, path: str | Path
) -> None:
    """Raise CheckpointError with the first missing, unexpected and differently shaped keys."""
    ours, theirs = _weights(own), _weights(state)
    faults = []
    missing = [k for k in ours if k not in theirs and k not in optional]
    unexpected = [k for k in theirs if k not in ours]
    shapes = [
        f"{k} {tuple(theirs[k].shape)} instead of {tuple(ours[k].shape)}"
        for k in ours
        if k in theirs and ours[k].shape != theirs[k].shape
    ]
    for word, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes)):
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            faults.append(f"{word}: {', '.join(keys[:SHOWN])}{more}")
    if faults:
        raise CheckpointError(f"{str(path)!r} does not fit {config.name}: {'; '.join(faults)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
