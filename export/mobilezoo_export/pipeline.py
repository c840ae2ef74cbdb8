"""`export_model`: the steps that all targets share.

copy → eval → fuse → trace → graph passes → for each target and precision: convert to a temporary name, run the file in
its own runtime, compare with PyTorch, and only then give it its name and record.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, Parity, file_stem, load_record_of, write_with_record
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo.files import finish, sha256_of, size_of, through_memory, versions
from mobilezoo.scratch import temporary_folder
from mobilezoo_export.convert import CALIBRATION, IMAGES, PROGRAM, Converters, Outcome, convert
from mobilezoo_export.flexible import program_of
from mobilezoo_export.images import SAMPLE_NAME, sample_images
from mobilezoo_export.parity import measure_parity
from mobilezoo_export.pixels import to_normalized, to_pixels
from mobilezoo_export.prepare import Prepared, eval_copy, prepare
from mobilezoo_export.quantize.calibration import too_few
from mobilezoo_export.records import ExportResult, ExportSpec
from mobilezoo_export.registry import load_exporter
from mobilezoo_export.tolerances import verdict

Progress = Callable[[str, str], None]
"""Called with (target, precision) before each file."""


def export_model(
    network: nn.Module,
    spec: ExportSpec,
    targets: Sequence[str],
    precisions: Sequence[str],
    out_dir: str | Path,
    *,
    images: Iterable[np.ndarray] | None = None,
    images_name: str = "given images",
    calibration: Iterable[np.ndarray] = (),
    overwrite: bool = False,
    isolate: bool = True,
    progress: Progress | None = None,
    finished: Callable[[ExportResult], None] | None = None,
    converters: Converters | None = None,
) -> list[ExportResult]:
    """Export a network to every target and precision.

    Args:
        network: takes float32 NCHW images, returns logits [N, classes].
        spec: name, input and options of the files; its precision is replaced by each of `precisions`.
        targets: names or places of export targets.
        precisions: fp32, fp16, int8, ...
        out_dir: folder of the files.
        images: float32 NCHW batches for parity; by default crops of real photographs.
        images_name: source of `images`, for the record.
        calibration: float32 NCHW batches for precisions that need them.
        overwrite: replace files that exist.
        isolate: run each converter in a process of its own.
        progress: called with (target, precision) before each export.
        finished: called with each result as soon as it is known.
        converters: processes that the caller keeps open for many networks.

    Returns:
        One result per target and precision, in order; what a target cannot do is a result with the reason.

    Raises:
        ExportError: the network cannot be traced.
        UnknownNameError: no such target.
    """
    exporters = {target: load_exporter(target) for target in targets}
    batch, source = _parity_images(spec, images, images_name)
    out = Path(out_dir)
    results: list[ExportResult] = []
    with ExitStack() as stack:
        work_dir = stack.enter_context(temporary_folder("export"))
        if isolate and converters is None:
            converters = stack.enter_context(Converters())
        work = _Work(work_dir, network, spec, batch, source, list(calibration), converters if isolate else None)
        for target, exporter in exporters.items():
            for precision in precisions:
                one = spec.model_copy(update={"precision": precision})
                if progress:
                    progress(target, precision)
                path = out / f"{file_stem(spec.model)}.{precision}{exporter.suffix}"
                kept = None if overwrite else _kept(work, one, target, path)
                results.append(kept or _export_one(work, one, target, path))
                if finished:
                    finished(results[-1])
    return results


class _Work:
    """Work that all targets share: tracing and PyTorch's logits, computed when the first target needs them."""

    def __init__(
        self,
        folder: Path,
        network: nn.Module,
        spec: ExportSpec,
        images: np.ndarray,
        source: str,
        calibration: list[np.ndarray],
        converters: Converters | None,
    ) -> None:
        self.folder, self.network, self.spec = folder, network, spec
        if spec.options.image:  # only what a uint8 can hold
            images = to_normalized(to_pixels(images, spec.preprocessing), spec.preprocessing)
        self.images, self.source, self.calibration, self.converters = images, source, calibration, converters
        self._prepared: Prepared | None = None
        self.reference = np.empty(0)
        self._weights = sha256_of(Path(spec.checkpoint)) if spec.checkpoint else "random"

    def recipe(self, spec: ExportSpec) -> str:
        """Return the SHA-256 over everything that determines a file: weights, spec, and the name of the images."""
        chosen = spec.model_dump(mode="json", exclude={"checkpoint"})
        text = json.dumps({"weights": self._weights, "images": self.source, "spec": chosen}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def prepared(self) -> Prepared:
        if self._prepared is None:
            self.reference = torch_logits(self.network, self.images, softmax=self.spec.options.softmax)
            self._prepared = prepare(self.network, self.spec)
            if self.converters:
                self._save(self._prepared)
        return self._prepared

    def _save(self, prepared: Prepared) -> None:
        with torch.no_grad():
            program = program_of(prepared.graph, self.spec)
        through_memory(self.folder / PROGRAM, lambda file: torch.export.save(program, file))
        np.save(self.folder / IMAGES, self.images)
        if self.calibration:
            np.save(self.folder / CALIBRATION, np.concatenate(self.calibration)[:, None])

    def convert(self, target: str, spec: ExportSpec, path: Path) -> tuple[Outcome, np.ndarray | None]:
        if self.converters:
            return self.converters.convert(target, spec, path, self.folder)
        return convert(self.prepared.graph, target, spec, path, self.images, self.calibration)


def torch_logits(network: nn.Module, images: np.ndarray, batch: int = 16, softmax: bool = False) -> np.ndarray:
    """Run a network in PyTorch, in float32 on the CPU: the reference of every parity figure.

    Args:
        network: takes float32 NCHW images, returns logits (N, classes); not changed.
        images: preprocessed float32 NCHW images.
        batch: images per forward pass.
        softmax: return probabilities instead of logits.

    Returns:
        Float32 scores (images, classes).
    """
    model = eval_copy(network)
    with torch.no_grad():
        pieces = [model(torch.from_numpy(images[i : i + batch])).numpy() for i in range(0, len(images), batch)]
    logits = np.concatenate(pieces)
    return torch.from_numpy(logits).softmax(-1).numpy() if softmax else logits


def _export_one(work: _Work, spec: ExportSpec, target: str, path: Path) -> ExportResult:
    started = time.perf_counter()

    def result(status: str, **fields: object) -> ExportResult:
        seconds = round(time.perf_counter() - started, 2)
        return ExportResult(target=target, precision=spec.precision, status=status, seconds=seconds, **fields)  # type: ignore[arg-type]

    exporter = load_exporter(target)
    prepared = work.prepared
    try:
        refusal = exporter.unsupported_reason(prepared.graph, spec)
        if refusal is None and spec.precision in exporter.calibrated:
            refusal = too_few(work.calibration, spec)
    except MobilezooError as error:
        refusal = str(error)
    if refusal:
        return result("refused", reason=refusal)
    found: list[tuple[Outcome, Parity | None]] = []

    def write(temporary: Path) -> None:
        outcome, logits = work.convert(target, spec, temporary)
        found.append((outcome, _judged(work, spec, outcome, logits, target)))

    try:
        artifact = write_with_record(path, write, lambda written: _record(work, spec, target, path, written, *found[0]))
        outcome, _parity = found[0]
    except MobilezooError as error:
        return result("failed", reason=str(error))
    coverage_warnings = outcome.coverage.warnings if outcome.coverage else ()
    found_in_file = [f"{target} {spec.precision}: {text}" for text in coverage_warnings]
    warnings = (*_zero_warning(prepared.zero_gammas), *outcome.warnings, *found_in_file)
    return result("exported", path=str(path), artifact=artifact, warnings=warnings)


def _judged(work: _Work, spec: ExportSpec, outcome: Outcome, logits: np.ndarray | None, target: str) -> Parity | None:
    """Return the parity of the file that was just run. Raises ExportError if it is out of tolerance."""
    if logits is None:
        return None
    parity = measure_parity(
        work.reference, logits, precision=spec.precision, inputs=work.source, ran_in=outcome.runtime or target
    )
    reason = verdict(parity, spec.precision)
    if reason:
        raise ExportError(f"{spec.model}: the {target} {spec.precision} file {reason}; it was not kept")
    return parity


def _record(
    work: _Work, spec: ExportSpec, target: str, path: Path, written: Path, outcome: Outcome, parity: Parity | None
) -> Artifact:
    exporter = load_exporter(target)
    borders = exporter.borders(written)
    return Artifact(
        path=path.name,
        target=target,
        precision=spec.precision,
        model=spec.model,
        input=exporter.input_spec(spec).model_copy(update={"quantization": borders.input}),
        output_quantization=borders.output,
        output="probabilities" if spec.options.softmax else "logits",
        float_segments=spec.float_segments,
        preprocessing=spec.preprocessing,
        labels=spec.labels,
        sha256=sha256_of(written),
        size_bytes=size_of(written),
        parity=parity,
        why_not_runnable=exporter.why_not_runnable(spec) if parity is None else None,
        zero_gammas=work.prepared.zero_gammas,
        coverage=outcome.coverage,
        checkpoint=os.path.relpath(spec.checkpoint, path.parent) if spec.checkpoint else None,
        checkpoint_key=spec.checkpoint_key,
        recipe_sha256=work.recipe(spec),
        tools=versions(["mobilezoo", *exporter.packages]),
    )


def _kept(work: _Work, spec: ExportSpec, target: str, path: Path) -> ExportResult | None:
    """Return a result for an existing file: kept if it has the same recipe, refused if it has no valid record.

    None if there is no file, or one of other weights, options or images, which is made again.
    """
    finish(path)
    if not path.exists():
        return None
    try:
        artifact = load_record_of(Artifact, path)
    except MobilezooError as error:
        reason = f"{error}; --overwrite replaces it"
        return ExportResult(target=target, precision=spec.precision, status="refused", reason=reason)
    if artifact.recipe_sha256 != work.recipe(spec):
        return None
    reason = f"{path.name} exists, made of the same weights and options: --overwrite makes it again"
    return ExportResult(
        target=target, precision=spec.precision, status="kept", path=str(path), artifact=artifact, reason=reason
    )


def _zero_warning(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"{len(names)} norm or LayerScale tensors are all zero (first: {names[0]}): converters fold their branches "
        "away, so the file is smaller and faster than a trained one",
    )


def _parity_images(spec: ExportSpec, images: Iterable[np.ndarray] | None, name: str) -> tuple[np.ndarray, str]:
    if images is None:
        return sample_images(spec), SAMPLE_NAME
    batches = list(images)
    if not batches:
        raise ExportError("no images to measure parity on: pass at least one batch, or none at all for built-in ones")
    batch = np.concatenate([np.asarray(piece, dtype=np.float32) for piece in batches])
    if batch.shape[1:] != spec.shape[1:]:
        raise ExportError(f"parity images have shape {batch.shape[1:]}, the model takes {spec.shape[1:]}")
    return batch, name
