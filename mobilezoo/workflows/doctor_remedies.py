"""Findings of a graph and of the units in one list, with the command that would help."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from mobilezoo.artifacts import Artifact
from mobilezoo.doctor_report import Anatomy, Finding, UnitVerdict

ORDER = (
    "custom",
    "parity",
    "accuracy",
    "fallback",
    "gpu-fault",
    "constant-left",
    "zero-weights",
    "float-island",
    "transpose-pair",
    "transpose",
    "dead",
    "constant",
    "identity",
    "batch-norm",
    "activation",
    "deep",
    "open-shape",
    "duplicate",
    "precision",
)
"""Kinds of findings, those that cost most first."""
EXPORTED = frozenset(
    {"transpose", "transpose-pair", "constant", "constant-left", "identity", "batch-norm", "activation", "deep", "dead"}
)
"""Findings that an export with our passes does not have."""
FORMATS = {"litert": "litert", "onnx": "onnx", "coreml": "coreml", "executorch": "executorch", "coreai": "coreai"}
LARGE = 100_000
"""Bytes of weights from which on fewer bits are worth a word."""
LEAST_SNR_DB = 15.0
"""Of an int8 file: trained EfficientNet-Lite0 keeps 19 dB, and loses less than a point of top-1."""
SIGNED = ", int8 activations"
"""In the words for the quantization of a file."""
WIDE = "w8a16"
WIDE_REMEDY = "16-bit activations (w8a16) at int8's size: for NPUs, slow on CPUs"


def all_findings(
    anatomy: Anatomy | None,
    verdicts: Sequence[UnitVerdict],
    record: Artifact | None,
    size_bytes: int,
    target: str,
    path: Path,
) -> tuple[Finding, ...]:
    """Findings in the order of what they cost, each with a command where there is one.

    Args:
        anatomy: the file's, if it could be read.
        verdicts: what the units answered.
        record: the file's record, of ours or made from the file; None where it does not run.
        size_bytes: of the file.
        target: its format.
        path: the file; its record names a checkpoint from there.
    """
    network = shlex.quote(_network(record, path))
    found = [*(anatomy.findings if anatomy else ()), *_of_units(verdicts), *_of_precision(anatomy, network, target)]
    if anatomy is not None and target == "onnx" and SIGNED in anatomy.scheme:
        found = [_unsigned(one, network) for one in found]
    found += _of_int8(record, network, target)
    found = [_with_command(one, network, target) for one in found]
    rank = {kind: place for place, kind in enumerate(ORDER)}
    return tuple(sorted(found, key=lambda one: rank.get(one.kind, len(ORDER))))


def _network(record: Artifact | None, path: Path) -> str:
    """The network to export again; files of others do not name theirs."""
    if record is None or record.foreign:
        return "timm:NAME"
    if record.checkpoint:
        return os.path.normpath(path.parent / record.checkpoint)
    return record.model


def _with_command(finding: Finding, network: str, target: str) -> Finding:
    if finding.command or finding.kind not in EXPORTED:
        return finding
    command = f"mobilezoo export {network} --to {FORMATS.get(target, 'litert')}"
    return finding.model_copy(update={"command": command})


def _of_units(verdicts: Sequence[UnitVerdict]) -> list[Finding]:
    """What units leave to the CPU or compute wrongly."""
    found = []
    for one in verdicts:
        if one.status == "failed":
            text = f"{one.unit} computes something else than {one.against or 'the host'}: {one.reason}"
            remedy = (
                "fewer bits or half precision may be too coarse for this network: try fp32, int8 with --max-drop, or "
                "w8a16 on NPUs"
            )
            found.append(Finding(kind="parity", text=text, count=1, remedy=remedy))
        elif one.how == "run" and one.outside:
            listed = ", ".join(f"{count} {op}" for op, count in list(one.outside.items())[:4])
            total, where = sum(one.outside.values()), "slower kernels" if one.unit == "xnnpack" else "the CPU"
            text = f"{one.unit} leaves {total} operator{'' if total == 1 else 's'} to {where} ({listed})"
            remedy = "; ".join(one.notes[:3]) or "spell them in operators it takes: each change of unit copies tensors"
            found.append(Finding(kind="fallback", text=text, count=total, remedy=remedy))
        elif one.how == "run" and (one.partitions or 1) > 1:
            text = f"{one.unit} runs the file in {one.partitions} parts: tensors are handed over between them"
            found.append(Finding(kind="fallback", text=text, count=int(one.partitions or 0)))
        elif one.how == "run" and one.status == "refused":
            found.append(Finding(kind="fallback", text=f"{one.unit} does not take the file: {one.reason}", count=1))
    return found


def _unsigned(finding: Finding, network: str) -> Finding:
    """The finding, with the type of activations of which the NPU takes more operators, if it left any."""
    if finding.kind != "fallback" or not finding.text.startswith("npu leaves"):
        return finding
    remedy = "unsigned activations, of which the NPU takes more operators (HardSigmoid)"
    command = f"mobilezoo export {network} --to onnx --precision int8 onnx_activations=uint8"
    return finding.model_copy(update={"remedy": remedy, "command": command})


def _of_int8(record: Artifact | None, network: str, target: str) -> list[Finding]:
    """What int8 costs, by the file's own record: top-1 where that was measured, else the outputs' noise."""
    from mobilezoo_export import load_exporter

    if record is None or record.foreign or record.precision != "int8":
        return []
    drop, parity = record.top1_drop, record.parity
    if drop is not None and drop.too_large:
        text = (
            f"int8 costs {drop.points:.1f} points of top-1 ({drop.top1_pytorch:.1f} → {drop.top1:.1f}%, {drop.inputs})"
        )
    elif drop is None and parity is not None and parity.snr_db < LEAST_SNR_DB:
        text = (
            f"int8 keeps {parity.snr_db:.1f} dB of the network's outputs: below {LEAST_SNR_DB:g} dB it may cost points"
        )
    else:
        return []
    mixed = "parts of it in float (--max-drop 1, with labelled images)"
    if WIDE not in load_exporter(target).precisions:
        return [Finding(kind="accuracy", text=text, count=1, remedy=mixed)]
    command = f"mobilezoo export {network} --to {target} --precision {WIDE}"
    return [Finding(kind="accuracy", text=text, count=1, remedy=f"{WIDE_REMEDY}; or {mixed}", command=command)]


def _of_precision(anatomy: Anatomy | None, network: str, target: str) -> list[Finding]:
    """Fewer bits, where weights are floats and large."""
    if anatomy is None or anatomy.weights_bytes < LARGE or not anatomy.scheme.startswith(("none", "half")):
        return []
    whole = anatomy.weight_types.get("float32", 0)
    half = anatomy.weight_types.get("float16", 0)
    if whole < LARGE and half < LARGE:
        return []
    command = f"mobilezoo export {network} --to {FORMATS.get(target, 'litert')} --precision "
    eighth = f"int8 to about {(whole / 4 + half / 2) / 1e6:.2f} MB"
    if whole >= LARGE:
        text = f"{whole / 1e6:.2f} MB of float32 weights: half precision takes them to {whole / 2e6:.2f} MB, {eighth}"
        return [Finding(kind="precision", text=text, count=1, command=command + "fp16,int8")]
    text = f"{half / 1e6:.2f} MB of half-precision weights: {eighth}, with integer arithmetic"
    return [Finding(kind="precision", text=text, count=1, command=command + "int8")]
