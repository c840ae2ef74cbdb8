"""The int8 files of a network trained with fake quantization: ExecuTorch and ONNX keep the ranges it learned.

LiteRT's converter refuses PT2E's per-channel weights (litert-torch 0.10); LiteRT and Core ML take the trained weights
from the checkpoint and measure ranges themselves, as after any training.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, file_stem, write_with_record
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo.files import sha256_of, size_of, versions
from mobilezoo_export.parity import measure_parity
from mobilezoo_export.quantize.qat import FakeQuantized
from mobilezoo_export.quiet import quiet
from mobilezoo_export.records import ExportResult, ExportSpec
from mobilezoo_export.registry import load_exporter, load_runner
from mobilezoo_export.tolerances import verdict

TARGETS = ("executorch", "onnx")


def write_int8(
    trained: FakeQuantized, spec: ExportSpec, folder: Path, images: np.ndarray, images_name: str
) -> list[ExportResult]:
    """Write `MODEL.int8-qat.pte` and `.onnx`, each run and compared with the fake-quantized network.

    Args:
        trained: the trained network; put in eval mode.
        spec: name, input and preprocessing of the files.
        folder: folder of the files.
        images: preprocessed float32 NCHW images for parity.
        images_name: source of `images`, for the record.

    Returns:
        One result per target; a file that could not be made has its reason.
    """
    spec = spec.model_copy(update={"precision": "int8"})
    with quiet(), torch.no_grad():
        trained.eval()
        size = max(2, min(16, len(images)))
        reference = np.concatenate(
            [trained(torch.from_numpy(images[i : i + size])).numpy() for i in range(0, len(images), size)]
        )
        integer = trained.converted()

    def describe(target: str, written: Path) -> Artifact:
        """Run the file and return its record. Raises ExportError if it is out of tolerance."""
        exporter, runner = load_exporter(target), load_runner(written)
        logits = np.concatenate([runner.run(images[i : i + 1]) for i in range(len(images))])
        parity = measure_parity(reference, logits, precision="int8", inputs=images_name, ran_in=runner.runtime)
        if reason := verdict(parity, "int8"):
            raise ExportError(f"{spec.model}: the {target} file {reason}; it was not kept")
        return Artifact(
            path=written.name,
            target=target,
            precision="int8",
            model=spec.model,
            input=exporter.input_spec(spec),
            preprocessing=spec.preprocessing,
            labels=spec.labels,
            sha256=sha256_of(written),
            size_bytes=size_of(written),
            parity=parity,
            tools=versions(["mobilezoo", "torchao", *exporter.packages]),
        )

    results = []
    for target in TARGETS:
        exporter = load_exporter(target)
        path = folder / f"{file_stem(spec.model)}.int8-qat{exporter.suffix}"
        try:
            exporter.require()
            artifact = write_with_record(path, partial(_write, integer, spec, target), partial(describe, target))
            results.append(_result(target, "exported", path=str(path), artifact=artifact))
        except MobilezooError as error:
            results.append(_result(target, "failed", reason=str(error)))
    return results


def _write(integer: nn.Module, spec: ExportSpec, target: str, path: Path) -> None:
    if target == "executorch":
        from mobilezoo_export.targets.executorch import lower

        with quiet(), torch.no_grad():
            path.write_bytes(lower(integer, torch.zeros(spec.shape), spec))
    else:  # the pairs are in the network already: nothing is left to quantize
        load_exporter(target).export(integer, spec.model_copy(update={"precision": "fp32"}), path)


def _result(target: str, status: str, **fields: object) -> ExportResult:
    return ExportResult(target=target, precision="int8", status=status, **fields)  # type: ignore[arg-type]
