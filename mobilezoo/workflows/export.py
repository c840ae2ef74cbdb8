"""`mobilezoo export`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mobilezoo.cli.tables import print_table
from mobilezoo.workflows.export_images import NONE_NAMED, Sources, export_images
from mobilezoo.workflows.load_model import Subject, load_subject
from mobilezoo.workflows.mixed_precision import export_mixed, print_mixed
from mobilezoo.workflows.model_options import SubjectOptions

if TYPE_CHECKING:
    import numpy as np

    from mobilezoo_export import ExportOptions, ExportResult, ExportSpec
    from mobilezoo_export.bisect import Finding

PARITY_IMAGES = 64


def export_subject(
    what: str,
    targets: list[str],
    precisions: list[str],
    said: SubjectOptions,
    sources: Sources,
    out: Path | None,
    *,
    overwrite: bool,
    progress: bool,
    batch: int = 1,
    settings: tuple[str, ...] = (),
    max_drop: float | None = None,
    classes: str | None = None,
) -> "list[ExportResult]":
    """Export what the user named to every target and precision; each cell ends in a file or a reason."""
    from mobilezoo.config import apply_overrides
    from mobilezoo_export import ExportOptions, load_exporter

    for target in targets:
        load_exporter(target)  # an unknown target is told before anything heavy happens
    options = ExportOptions.parse(apply_overrides({}, settings), "--set")
    subject = load_subject(what, said)
    if subject.fresh:
        Console(stderr=True).print(f"{subject.name}: random weights, norms randomised: good for latency, not for use")
    folder = out or (subject.folder or Path()) / "export"
    return export_network(
        subject,
        targets,
        precisions,
        folder,
        sources=sources,
        overwrite=overwrite,
        progress=progress,
        batch=batch,
        options=options,
        max_drop=max_drop,
        classes=classes,
    )


def export_network(
    subject: Subject,
    targets: list[str],
    precisions: list[str],
    out: Path,
    *,
    sources: Sources = NONE_NAMED,
    overwrite: bool = True,
    progress: bool = False,
    isolate: bool = True,
    images: int = PARITY_IMAGES,
    batch: int = 1,
    options: "ExportOptions | None" = None,
    max_drop: float | None = None,
    classes: str | None = None,
) -> "list[ExportResult]":
    """The same for a network at hand; norms of fresh networks are filled, so that nothing folds away.

    `max_drop`: int8 files keep as much in float as holds top-1 within that many points; `classes` is for its scores.
    """
    from mobilezoo_export import ExportOptions, export_model

    spec = spec_of(subject, batch=batch, options=options or ExportOptions())
    samples = export_images(subject, spec, sources, images)
    _settle(subject, samples.parity)
    with _status(progress) as status:
        if max_drop is not None:
            return export_mixed(subject, spec, targets, precisions, out, samples, max_drop, overwrite, status, classes)
        count = numbered(len(targets) * len(precisions))
        return export_model(
            subject.network,
            spec,
            targets,
            precisions,
            out,
            images=[samples.parity],
            images_name=samples.parity_name,
            calibration=[samples.calibration],
            overwrite=overwrite,
            isolate=isolate,
            progress=lambda target, precision: status(f"{subject.name}: {next(count)}, {target} {precision}"),
        )


def bisect_subject(
    what: str, targets: list[str], precisions: list[str], said: SubjectOptions, sources: Sources, *, progress: bool
) -> "list[Finding]":
    """The first layer of each target and precision whose output departs from PyTorch."""
    from mobilezoo_export import load_exporter
    from mobilezoo_export.bisect import bisect

    for target in targets:
        load_exporter(target)
    subject = load_subject(what, said)
    spec = spec_of(subject)
    images = export_images(subject, spec, sources, PARITY_IMAGES)
    _settle(subject, images.parity)
    found = []
    with _status(progress) as status:
        for target in targets:
            for precision in precisions:
                one = spec.model_copy(update={"precision": precision})
                found.append(bisect(subject.network, one, target, images.parity, [images.calibration], status))
    return found


def _settle(subject: Subject, images: "np.ndarray") -> None:
    """Give a fresh network norms that hide nothing and fit the images."""
    if subject.fresh:
        import torch

        from mobilezoo.models.randomize import as_if_trained

        as_if_trained(subject.network, torch.from_numpy(images[:16]))


def print_findings(found: "list[Finding]") -> None:
    rows = [
        (f.target, f.precision, f.layer or "none: the whole network agrees", f.last_good or "", f.probes, f.reason)
        for f in found
    ]
    columns = ("target", "precision", "first layer that departs", "last that agrees", "probes", "how")
    print_table("where files depart from PyTorch", columns, rows)


@contextmanager
def _status(enabled: bool) -> Iterator[Callable[[str], None]]:
    """A spinner with a line of text; converters tell no share of their work."""
    if not enabled:
        yield lambda _text: None
        return
    with Console(stderr=True).status("preparing") as status:
        yield lambda text: status.update(text)


def numbered(total: int) -> Iterator[str]:
    """`1 of 6`, `2 of 6`, …"""
    return (f"{number} of {total}" for number in range(1, total + 1))


def spec_of(subject: Subject, **more: Any) -> "ExportSpec":
    """What to export of a subject, as far as the subject says."""
    from mobilezoo_export import ExportSpec

    return ExportSpec(
        model=subject.name,
        resolution=subject.resolution,
        in_chans=subject.in_chans,
        preprocessing=subject.preprocessing,
        labels=subject.labels,
        checkpoint=str(subject.checkpoint) if subject.checkpoint else None,
        checkpoint_key=subject.checkpoint_key,
        **more,
    )


def print_exports(results: "list[ExportResult]") -> None:
    rows = []
    for r in results:
        a = r.artifact
        p = a.parity if a else None
        rows.append(
            (
                r.target,
                r.precision,
                r.status,
                f"{a.size_bytes / 1e6:.2f}" if a else "",
                f"{p.relative:.1e}" if p else "",
                f"{p.snr_db:.0f}" if p else "",
                f"{100 * p.top1_agreement:.1f}" if p else "",
                (p.ran_in if p else a.not_run) if a else r.reason,
                r.path or "",
            )
        )
    columns = ("target", "precision", "status", "MB", "max diff / std", "SNR dB", "top-1 agreement %", "run by", "file")
    print_table("difference from PyTorch on real images", columns, rows, paths_last=True)
    print_mixed(results)
    for warning in dict.fromkeys(w for r in results for w in r.warnings):
        print(f"warning: {warning}")
