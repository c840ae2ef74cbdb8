"""One network on its way to many files: tracing and PyTorch's logits are computed once for all of them.

copy → eval → fuse → trace → graph passes → for each file: convert to a temporary name, run it in its own runtime,
compare it with PyTorch, and only then give it its name and record.
"""

import hashlib
import json
import os
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mobilezoo.artifacts import Artifact, Parity, load_record_of, write_with_record
from mobilezoo.errors import ExportError, MobilezooError
from mobilezoo.files import finish, sha256_of, size_of, through_memory, versions
from mobilezoo.scratch import temporary_folder
from mobilezoo_export.convert import CALIBRATION, IMAGES, PROGRAM, Converters, Outcome, convert
from mobilezoo_export.flexible import program_of
from mobilezoo_export.parity import measure_parity
from mobilezoo_export.pixels import to_normalized, to_pixels
from mobilezoo_export.prepare import Prepared, prepare
from mobilezoo_export.quantize.calibration import too_few
from mobilezoo_export.records import ExportResult, ExportSpec, ProofImages, UnitChecker
from mobilezoo_export.reference import check_answers, parity_images, torch_logits
from mobilezoo_export.registry import load_exporter, targets_with
from mobilezoo_export.tolerances import verdict


class ExportSession:
    """A network that is exported to any number of files. Use as a context manager."""

    def __init__(
        self,
        network: nn.Module,
        spec: ExportSpec,
        images: ProofImages | None = None,
        *,
        isolate: bool | Converters = True,
    ) -> None:
        """Take the images; the network is traced when the first file is made.

        Args:
            network: takes float32 NCHW images, returns logits (N, classes); not changed.
            spec: name, input and options of all files; precision and float segments are those of each file.
            images: images for parity and calibration; by default crops of sample photographs, and no calibration.
            isolate: True: each converter runs in a worker process; False: in this process; Converters: in workers
                that the caller keeps for many networks.

        Raises:
            ExportError: the parity images do not fit the network.
        """
        images = images or ProofImages()
        self._network, self._spec, self._isolate = network, spec, isolate
        self._images, self._source = parity_images(spec, images)
        if spec.options.image:
            # Parity is measured on values that a uint8 input can hold.
            self._images = to_normalized(to_pixels(self._images, spec.preprocessing), spec.preprocessing)
        has_calibration = images.calibration is not None and len(images.calibration) > 0
        self._calibration = [images.calibration] if images.calibration is not None and has_calibration else []
        self._weights = sha256_of(Path(spec.checkpoint)) if spec.checkpoint else "random"
        self._prepared: Prepared | None = None
        self._reference = np.empty(0)
        self._held = ExitStack()

    def __enter__(self) -> "ExportSession":
        self._folder = self._held.enter_context(temporary_folder("export"))
        self._converters: Converters | None = None
        if isinstance(self._isolate, Converters):
            self._converters = self._isolate
        elif self._isolate:
            self._converters = self._held.enter_context(Converters())
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def export(
        self,
        target: str,
        spec: ExportSpec,
        path: Path,
        *,
        overwrite: bool = False,
        check: UnitChecker | None = None,
    ) -> ExportResult:
        """Make one file, unless it exists already, made of the same weights and options.

        Args:
            target: an export target.
            spec: the session's spec with this file's precision and float segments.
            path: file to write.
            overwrite: replace a file that exists, whoever made it.
            check: runs the file on further units before it gets its name.

        Returns:
            The file's record, or the reason why there is none.

        Raises:
            ExportError: the network cannot be traced.
        """
        kept = None if overwrite else self._kept(target, spec, path, check)
        return kept or self._made(target, spec, path, check)

    def changing_passes(self, target: str, spec: ExportSpec) -> tuple[str, ...]:
        """Graph passes of a target's own that change this network, each of which may be left out.

        Args:
            target: an export target.
            spec: the session's spec with the file's options.

        Raises:
            ExportError: the network cannot be traced.
        """
        exporter = load_exporter(target)
        return exporter.changing_passes(self._trace().graph, spec)

    def _made(self, target: str, spec: ExportSpec, path: Path, check: UnitChecker | None) -> ExportResult:
        started = time.perf_counter()

        def result(status: str, **fields: object) -> ExportResult:
            seconds = round(time.perf_counter() - started, 2)
            return ExportResult(target=target, precision=spec.precision, status=status, seconds=seconds, **fields)  # type: ignore[arg-type]

        prepared = self._trace()
        if refusal := self._refusal(target, spec, prepared):
            return result("refused", reason=refusal)
        found: list[tuple[Outcome, Parity | None]] = []

        def write(temporary: Path) -> None:
            outcome, logits = self._convert(target, spec, temporary)
            found.append((outcome, self._checked(target, spec, outcome, logits)))

        def describe(written: Path) -> Artifact:
            record = self._record(target, spec, path, written, *found[0])
            record = record.model_copy(update={"recipe_sha256": self._recipe(target, spec, check)})
            checks = check(written, record, self._images, self._reference) if check else ()
            return record.model_copy(update={"checks": checks})

        try:
            artifact = write_with_record(path, write, describe)
        except MobilezooError as error:
            return result("failed", reason=str(error))
        outcome, _parity = found[0]
        coverage_warnings = outcome.coverage.warnings if outcome.coverage else ()
        found_in_file = [f"{target} {spec.precision}: {text}" for text in coverage_warnings]
        missed = [one for one in artifact.checks if one.reason]
        found_in_file += [f"{target} {spec.precision} on {one.unit}: {one.status}: {one.reason}" for one in missed]
        warnings = (*_zero_warning(prepared.zero_gammas), *outcome.warnings, *found_in_file)
        return result("exported", path=str(path), artifact=artifact, warnings=warnings)

    def _trace(self) -> Prepared:
        """Trace the network and compute PyTorch's logits, once."""
        if self._prepared is None:
            self._reference = torch_logits(self._network, self._images, softmax=self._spec.options.softmax)
            check_answers(self._spec, self._reference.shape[1:])
            self._prepared = prepare(self._network, self._spec)
            if self._converters:
                self._save(self._prepared)
        return self._prepared

    def _save(self, prepared: Prepared) -> None:
        """Write what the workers read: the traced program and the images."""
        with torch.no_grad():
            program = program_of(prepared.graph, self._spec)
        through_memory(self._folder / PROGRAM, lambda file: torch.export.save(program, file))
        np.save(self._folder / IMAGES, self._images)
        if self._calibration:
            np.save(self._folder / CALIBRATION, np.concatenate(self._calibration)[:, None])

    def _refusal(self, target: str, spec: ExportSpec, prepared: Prepared) -> str | None:
        """Return why the target cannot make the file, or None."""
        exporter = load_exporter(target)
        try:
            reason = exporter.unsupported_reason(prepared.graph, spec)
            having = targets_with(spec.precision)
            if reason is not None and spec.precision not in exporter.precisions and having:
                reason += f"; {', '.join(having)} {'has' if len(having) == 1 else 'have'} {spec.precision}"
            if reason is None and spec.precision in exporter.calibrated:
                reason = too_few(self._calibration, spec)
        except MobilezooError as error:
            reason = str(error)
        return reason

    def _convert(self, target: str, spec: ExportSpec, path: Path) -> tuple[Outcome, np.ndarray | None]:
        if self._converters:
            return self._converters.convert(target, spec, path, self._folder)
        return convert(self._trace().graph, target, spec, path, self._images, self._calibration)

    def _checked(self, target: str, spec: ExportSpec, outcome: Outcome, logits: np.ndarray | None) -> Parity | None:
        """Return the parity of the file that was just run. Raises ExportError if it is out of tolerance."""
        if logits is None:
            return None
        names = {"precision": spec.precision, "inputs": self._source, "ran_in": outcome.runtime or target}
        parity = measure_parity(
            self._reference[: load_exporter(target).proof_images], logits, boxes=spec.boxes, **names
        )
        if reason := verdict(parity, spec.precision):
            raise ExportError(f"{spec.model}: the {target} {spec.precision} file {reason}; it was not kept")
        return parity

    def _recipe(self, target: str, spec: ExportSpec, check: UnitChecker | None) -> str:
        """Return the SHA-256 over everything that determines a file and its record: weights, spec, images, units."""
        chosen = spec.model_dump(mode="json", exclude={"checkpoint", "origin", "form"})
        if spec.task == "classify":  # as in records from before there were other tasks
            del chosen["task"], chosen["boxes"]
        if target != "qnn":  # as before, and another chip makes no other file
            del chosen["options"]["htp_arch"], chosen["options"]["soc_model"]
        if not chosen["options"]["without"]:  # as before there were forms
            del chosen["options"]["without"]
        decides = {"weights": self._weights, "images": self._source, "spec": chosen}
        if check and check.units:
            decides["units"] = list(check.units)
        text = json.dumps(decides, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def _record(
        self, target: str, spec: ExportSpec, path: Path, written: Path, outcome: Outcome, parity: Parity | None
    ) -> Artifact:
        """Describe the file `written`, which will be named `path`."""
        exporter = load_exporter(target)
        borders = exporter.borders(written)
        return Artifact(
            path=path.name,
            target=target,
            precision=spec.precision,
            model=spec.model,
            input=exporter.input_spec(spec).model_copy(update={"quantization": borders.input}),
            output_quantization=borders.output,
            task=spec.task,
            boxes=spec.boxes,
            output_shape=() if spec.task == "classify" else self._reference.shape[1:],
            output=spec.output,
            float_segments=spec.float_segments,
            form=spec.form,
            preprocessing=spec.preprocessing,
            labels=spec.labels,
            sha256=sha256_of(written),
            size_bytes=size_of(written),
            parity=parity,
            why_not_runnable=exporter.why_not_runnable(spec) if parity is None else None,
            zero_gammas=self._trace().zero_gammas,
            coverage=outcome.coverage,
            checkpoint=os.path.relpath(spec.checkpoint, path.parent) if spec.checkpoint else None,
            checkpoint_sha256=self._weights if spec.checkpoint else None,
            checkpoint_key=spec.checkpoint_key,
            origin=spec.origin,
            tools=versions(["mobilezoo", *exporter.packages]),
        )

    def _kept(self, target: str, spec: ExportSpec, path: Path, check: UnitChecker | None) -> ExportResult | None:
        """Return a result for an existing file: kept if it has the same recipe, refused if it has no valid record.

        None if there is no file, or one of other weights, options or images, or without the search for its form that
        this one comes from; it is made again.
        """
        finish(path)
        if not path.exists():
            return None
        try:
            artifact = load_record_of(Artifact, path)
        except MobilezooError as error:
            reason = f"{error}; --overwrite replaces it"
            return ExportResult(target=target, precision=spec.precision, status="refused", reason=reason)
        unsearched = spec.form is not None and artifact.form is None
        if unsearched or artifact.recipe_sha256 != self._recipe(target, spec, check):
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
