"""Files of a network for every target and precision, each compared with PyTorch; or the layer where a file departs."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilezoo.workflows.export_images import ExportImages, export_images
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.load_model import Subject, load_subject
from mobilezoo.workflows.mixed_precision import export_mixed
from mobilezoo.workflows.model_options import NOTHING_SAID, SubjectOptions

if TYPE_CHECKING:
    import numpy as np

    from mobilezoo_export import ExportConfig, ExportResult, ExportSpec
    from mobilezoo_export.bisect import Finding


def load_export_config(name: str = "default", overrides: tuple[str, ...] = ()) -> "ExportConfig":
    """An export config by path or bare name. Raises ConfigError, UnknownNameError."""
    from mobilezoo.config import find_config, load_record
    from mobilezoo_export import ExportConfig

    return load_record(ExportConfig, find_config("export", name), overrides)


def export(
    model: str,
    config: "ExportConfig | None" = None,
    options: SubjectOptions = NOTHING_SAID,
    *,
    out: Path | None = None,
    hooks: Hooks = SILENT,
) -> "list[ExportResult]":
    """Export what the user named to every target and precision; each cell ends in a file or a reason.

    Args:
        model: zoo name, model YAML, checkpoint of ours, or `timm:NAME`.
        config: which files, and how they are proven.
        options: what is said of the network beside its name.
        out: folder of the files; `export/` beside the checkpoint, or here, where it is left out.

    Raises MobilezooError; what one target cannot do is in its result.
    """
    config = config or load_export_config()
    loaded = load_subject(model, options)
    if loaded.fresh:
        hooks.on_message(f"{loaded.name}: random weights, norms randomised: good for latency, not for use")
    return export_network(loaded, config, out or (loaded.folder or Path()) / "export", hooks=hooks)


def export_network(
    subject: Subject, config: "ExportConfig", out: Path, *, isolate: bool = True, hooks: Hooks = SILENT
) -> "list[ExportResult]":
    """The same for a network at hand; norms of fresh networks are filled, so that nothing folds away.

    `isolate`: converters work in processes of their own, so that a crash costs one file.
    """
    from mobilezoo_export import export_model

    spec = spec_of(subject, batch=config.batch, options=config.options)
    images = export_images(subject, spec, config, hooks)
    _settle(subject, images.parity)
    if config.max_drop is not None:
        return export_mixed(subject, spec, config, images, out, hooks=hooks)
    total = len(config.targets) * len(config.precisions)
    done = iter(range(total))

    def starting(target: str, precision: str) -> None:
        number = next(done)
        hooks.on_progress(f"{subject.name}: {number + 1} of {total}, {target} {precision}", number, total)

    return export_model(
        subject.network,
        spec,
        config.targets,
        config.precisions,
        out,
        images=[images.parity],
        images_name=images.parity_name,
        calibration=[images.calibration],
        overwrite=config.overwrite,
        isolate=isolate,
        progress=starting,
    )


def bisect_model(
    model: str, config: "ExportConfig", options: SubjectOptions = NOTHING_SAID, *, hooks: Hooks = SILENT
) -> "list[Finding]":
    """The first layer of each target and precision whose output departs from PyTorch."""
    from mobilezoo_export.bisect import bisect

    subject = load_subject(model, options)
    spec = spec_of(subject, options=config.options)
    images: ExportImages = export_images(subject, spec, config, hooks)
    _settle(subject, images.parity)
    return [
        bisect(
            subject.network,
            spec.model_copy(update={"precision": precision}),
            target,
            images.parity,
            [images.calibration],
            hooks.status,
        )
        for target in config.targets
        for precision in config.precisions
    ]


def _settle(subject: Subject, images: "np.ndarray") -> None:
    """Give a fresh network norms that hide nothing and fit the images."""
    if subject.fresh:
        import torch

        from mobilezoo.models.randomize import as_if_trained

        as_if_trained(subject.network, torch.from_numpy(images[:16]))


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
