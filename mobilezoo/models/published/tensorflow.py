"""TensorFlow checkpoints in an archive → safetensors with official names, by TensorFlow's own reader.

Two formats are met: MnasNet's (tensorflow/tpu, models/official/mnasnet: TensorFlow 1, values by the variables' names)
and tiny-MOAT's (google-research/deeplab2: TensorFlow 2, values by their place in a graph of objects that carries the
variables' names). Where a moving average was kept beside a variable, it is taken: the official evaluation reads it
(eval_ckpt_main.py, enable_ema). What is written has PyTorch's order of axes; families rename it (`from_official`).
"""

import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.errors import CheckpointError, first_line, require
from mobilezoo.models.published.choose import Published
from mobilezoo.scratch import temporary_folder

if TYPE_CHECKING:
    import numpy as np

GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
AVERAGE_BY_NAME = "/ExponentialMovingAverage"
AVERAGE_IN_GRAPH = "/.OPTIMIZER_SLOT/optimizer/average"
SLOT = "/.OPTIMIZER_SLOT/"
NETWORKS = r"(?:^|/)(mnas_(?:stem|head|blocks_\d+)/.+|moat/.+|(?:conv|norm)_[01]/.+)$"
"""Beginnings of the variables' names of both networks; what is before them is a scope of the training's."""
TRAINING = re.compile(r"/(RMSProp(_\d+)?|Momentum|Adam(_\d+)?|ExponentialMovingAverage)$")
MAX_MEMBERS = 1000
MAX_BYTES = 1 << 32
"""Of all files in the archive together."""


def convert(one: Published, archive: Path, out: Path) -> None:
    """Write the weights of a published archive as safetensors.

    Args:
        one: what is published there, for messages.
        archive: the .tgz.
        out: the file to write.

    Raises:
        CheckpointError: the archive is damaged or holds no network that is known here.
        MissingToolError: TensorFlow is not installed.
    """
    from safetensors.numpy import save_file

    require("tensorflow", "tensorflow")
    with temporary_folder("tensorflow") as folder:
        prefix = unpack(archive, folder)
        try:
            tensors = read_checkpoint(prefix)
        except CheckpointError:
            raise
        except Exception as error:  # TensorFlow's own, of many kinds
            raise CheckpointError(f"{one.name}: {prefix.name!r} is damaged: {first_line(error)}") from None
    if not tensors:
        raise CheckpointError(f"{one.name}: {prefix.name!r} holds no variable of a network that is known here")
    save_file(tensors, out)


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack an archive of one checkpoint.

    Args:
        archive: the .tgz.
        folder: an empty folder.

    Returns:
        The checkpoint's prefix, as TensorFlow names them.

    Raises:
        CheckpointError: it is damaged, too large, or holds no or several checkpoints.
    """
    name = str(archive)
    try:
        with tarfile.open(archive, "r:*") as tar:
            total = 0
            for number, member in enumerate(tar):
                total += member.size
                if number >= MAX_MEMBERS or total > MAX_BYTES:
                    raise CheckpointError(f"{name!r} holds more than a checkpoint: {number:,} files, {total:,} bytes")
                if member.isfile():
                    tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"{name!r} is damaged or no archive: {first_line(error)}") from None
    found = sorted(folder.rglob("*.index"))
    if len(found) != 1:
        raise CheckpointError(f"{name!r} holds {len(found)} TensorFlow checkpoints: expected one")
    return found[0].with_suffix("")


def read_checkpoint(prefix: Path) -> "dict[str, np.ndarray]":
    """Official name → array in PyTorch's order of axes, of the network's variables in a checkpoint."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import numpy as np
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(prefix))
    shapes: Mapping[str, Any] = reader.get_variable_to_shape_map()
    tensors = {}
    for name, key in sorted(_keys(reader, shapes).items()):
        if known := re.search(NETWORKS, name):
            value = np.asarray(reader.get_tensor(key))
            if value.dtype.kind == "f":
                tensors[known[1]] = np.ascontiguousarray(_torch_axes(known[1], value), dtype=np.float32)
    return tensors


def _keys(reader: Any, shapes: Mapping[str, Any]) -> dict[str, str]:
    """Variable's name → key of its value: its moving average, where there is one."""
    if GRAPH not in shapes:
        plain = [key for key in shapes if not TRAINING.search(key)]
        return {key: averaged if (averaged := key + AVERAGE_BY_NAME) in shapes else key for key in plain}
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = TrackableObjectGraph()
    graph.ParseFromString(reader.get_tensor(GRAPH))
    found = {}
    for node in graph.nodes:
        for attribute in node.attributes:
            key = attribute.checkpoint_key
            if attribute.full_name and key in shapes and SLOT not in key:
                averaged = key.removesuffix(VALUE) + AVERAGE_IN_GRAPH + VALUE
                found[attribute.full_name] = averaged if averaged in shapes else key
    return found


def _torch_axes(name: str, value: "np.ndarray") -> "np.ndarray":
    """Convolutions [h, w, in, out] → [out, in, h, w], depthwise ones too; matrices and attention's output turned."""
    if name.endswith("depthwise_kernel"):
        return value.transpose(2, 3, 0, 1)
    if name.endswith("/kernel") and value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if name.endswith("/kernel") and value.ndim == 2:
        return value.T
    return value.transpose(2, 0, 1) if name.endswith("/attention/o/weight") else value
