"""Records of files made by other tools: derived from the file alone, and marked as not proven here."""

from pathlib import Path

from mobilezoo.artifacts import Artifact, InputSpec, Preprocessing
from mobilezoo.errors import ExportError
from mobilezoo.files import sha256_of, size_of
from mobilezoo_export.contract import Runner
from mobilezoo_export.endings import ending, scores_output
from mobilezoo_export.packs import read_file_metadata
from mobilezoo_export.registry import exporter_of, load_runner

NOT_PROVEN = "not proven here"
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)
"""Stands in where a file does not declare its preprocessing."""


def describe_file(path: Path, runner: Runner | None = None, labels: int = 0) -> Artifact:
    """Make a record of a file from the file alone.

    A damaged file may end the process that loads it: `apart.inspect_file` does this in a separate one.

    Args:
        path: an exported file.
        runner: the loaded file; None: it is loaded here.
        labels: number of known class names, which selects the scores among several outputs; 0: those in the file.

    Returns:
        A record with `foreign` set; `undeclared` lists what the file leaves open.

    Raises:
        ExportError: the file is damaged, or its input is not supported.
    """
    runner = runner or load_runner(path)
    declared = read_file_metadata(path)
    prep = (declared.preprocessing or PLAIN).for_channels(channels_of(runner.input) or 3)
    index = _scores(runner, labels or len(declared.labels))
    output = declared.output or ending(path, index or 0)
    known = {
        "preprocessing": declared.preprocessing is not None,
        "resolution": not _any_size(runner),
        "output": output is not None,
        "scores": index is not None,
    }
    return Artifact(
        path=path.name,
        target=exporter_of(path).target,
        precision=_precision(runner),
        model=path.stem,
        input=runner.input,
        output=output or "logits",
        output_index=index or 0,
        preprocessing=prep,
        labels=declared.labels,
        sha256=sha256_of(path),
        size_bytes=size_of(path),
        parity=None,
        why_not_runnable=NOT_PROVEN,
        tools={},
        output_quantization=runner.outputs[index or 0].quantization if runner.outputs else None,
        foreign=True,
        undeclared=tuple(name for name, is_known in known.items() if not is_known),
    )


def channels_of(spec: InputSpec) -> int:
    """Return the number of channels of an image input; 0 for any other input."""
    return 0 if spec.layout == "none" else spec.shape[1 if spec.layout == "NCHW" else -1]


def _scores(runner: Runner, labels: int) -> int | None:
    try:
        return scores_output(runner.outputs, labels)
    except ExportError:
        return None


def _any_size(runner: Runner) -> bool:
    """Whether the file leaves an image's height or width open."""
    sides = (2, 3) if runner.input.layout == "NCHW" else (1, 2)
    return runner.input.layout != "none" and any(axis in runner.inputs[0].open_axes for axis in sides)


def _precision(runner: Runner) -> str:
    """Return int8 for a file with 8-bit input or output and a quantized output, else unknown."""
    types = {tensor.dtype for tensor in (*runner.inputs, *runner.outputs)}
    return "int8" if types & {"int8", "uint8"} and runner.outputs and runner.outputs[0].quantization else "unknown"
