"""Which operator of a LiteRT file each operator of the runtime computes.

XNNPACK takes the file's operators in their order, leaves some out (constants, fused clamps) and adds some of its own
(conversions to half precision). The two rows are aligned like two texts: the order is kept, names must fit, and where
several places fit, the one with the executed number of multiply-adds is taken.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mobilezoo_latency.estimators.kernels import TRANSPOSE_BIAS, Kernel

CELLS = 50_000_000
"""Largest table of pairs; beyond it nothing is attributed."""
GIVEN, FITS, SAME_MACS = 8, 2, 1
LOW, HIGH = 0.7, 1.7
"""Executed over computed multiply-adds: edges leave some out, tiles round channels up."""
OTHER_NAMES = {
    "fullyconnected": ("CONV_2D", "FULLY_CONNECTED"),
    "convolution": ("CONV_2D", "DEPTHWISE_CONV_2D"),
    "deconvolution": ("TRANSPOSE_CONV", TRANSPOSE_BIAS),
    "sigmoid": ("LOGISTIC",),
    "clamp": ("RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "MINIMUM", "MAXIMUM"),
    "staticreshape": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS"),
    "copy": ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "CONCATENATION", "SPLIT", "SLICE", "STRIDED_SLICE"),
    "slice": ("SLICE", "STRIDED_SLICE", "SPLIT"),
    "split": ("SPLIT", "SPLIT_V"),
    "constantpad": ("PAD", "PADV2"),
    "convert": ("QUANTIZE", "DEQUANTIZE", "CAST"),
    "batchmatrixmultiply": ("BATCH_MATMUL", "FULLY_CONNECTED"),
    "reduce": ("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"),
    "globalaveragepooling": ("MEAN", "AVERAGE_POOL_2D"),
    "approxgelu": ("GELU",),
    "reciprocalsquareroot": ("RSQRT",),
    "squareroot": ("SQRT",),
    "negate": ("NEG",),
}
"""Operators of files by what XNNPACK's names begin with, where the names differ."""


class Run(NamedTuple):
    """An operator of the runtime: its name, the node of the file if that is given, executed multiply-adds."""

    name: str
    node: int | None
    macs: float


def assign(runs: Sequence[Run], nodes: Sequence[Kernel]) -> list[int | None]:
    """Finds the node of each run.

    Args:
        runs: the runtime's operators in the order they ran.
        nodes: the file's operators.

    Returns:
        An index into `nodes` for each run, None where no node fits.
    """
    if not runs or not nodes or len(runs) * len(nodes) > CELLS:
        return [run.node for run in runs]
    scores = _scores(runs, nodes)
    best = np.zeros((len(runs) + 1, len(nodes) + 1), np.int32)
    for i, row in enumerate(scores):
        best[i + 1, 1:] = np.maximum(best[i, 1:], best[i, :-1] + row)
        best[i + 1] = np.maximum.accumulate(best[i + 1])
    found: list[int | None] = [None] * len(runs)
    i, j = len(runs), len(nodes)
    while i and j:
        if best[i, j] == best[i, j - 1]:
            j -= 1
        elif best[i, j] == best[i - 1, j]:
            i -= 1
        else:
            i, j = i - 1, j - 1
            found[i] = j
    return found


def fits(name: str, operator: str) -> bool:
    """Whether a runtime's name may stand for a file's operator.

    Args:
        name: XNNPACK's name, `Average Pooling (NHWC, F32)`.
        operator: the file's, AVERAGE_POOL_2D.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.partition("(")[0].lower())
    listed = [operators for start, operators in OTHER_NAMES.items() if plain.startswith(start)]
    if listed:
        return any(operator in operators for operators in listed) and (operator, name[-6:]) != ("CONV_2D", "DWConv")
    return plain.startswith(re.sub(r"_2d$|[^a-z0-9]", "", operator.lower()))


def _scores(runs: Sequence[Run], nodes: Sequence[Kernel]) -> np.ndarray:
    names, operators = [run.name for run in runs], [node.operator for node in nodes]
    table = {(n, o): FITS * fits(n, o) for n in set(names) for o in set(operators)}
    macs = np.array([node.macs for node in nodes])
    taken = {run.node for run in runs if run.node is not None}
    scores = np.zeros((len(runs), len(nodes)), np.int32)
    for i, run in enumerate(runs):
        if run.node is not None:
            if run.node < len(nodes):
                scores[i, run.node] = GIVEN
            continue
        scores[i] = [table[run.name, operator] for operator in operators]
        same = (macs > 0) & (macs * LOW <= run.macs) & (run.macs <= macs * HIGH)
        scores[i] += SAME_MACS * (same & (scores[i] > 0))
    scores[:, [node.operator == "DEQUANTIZE" and node.weight_bytes > 0 for node in nodes]] = 0  # done when loading
    for node in taken:
        if node < len(nodes):
            scores[[run.node != node for run in runs], node] = 0
    return scores
