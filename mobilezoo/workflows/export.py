"""Files of a network for every target and precision, each compared with PyTorch; or the layer where a file diverges."""

from pathlib import Path
from typing import TYPE_CHECKING

from mobilezoo.errors import writable_place
from mobilezoo.workflows.accuracy_drop import with_top1_drops
from mobilezoo.workflows.check_units import UnitChecks
from mobilezoo.workflows.export_images import ExportImages, export_images
from mobilezoo.workflows.hooks import SILENT, Hooks
from mobilezoo.workflows.load_model import LoadedModel, load_model
from mobilezoo.workflows.mixed_precision import export_mixed
from mobilezoo.workflows.model_options import NO_OPTIONS, ModelOptions
from mobilezoo.workflows.optimize import emulated_core, export_optimized

if TYPE_CHECKING:
    import numpy as np

    from mobilezoo_export import ExportConfig, ExportResult, ModelSpec
    from mobilezoo_export.bisect import Finding


def load_export_config(name: str = "default", overrides: tuple[str, ...] = ()) -> "ExportConfig":
    """An export config.

    Args:
        name: path of a YAML, or a bare name in configs/export/.
        overrides: dotted `KEY=VALUE` changes.

    Raises:
        ConfigError: a value is not valid, or a key is unknown.
        UnknownNameError: there is no such config.
    """
    from mobilezoo.config import find_config, load_record
    from mobilezoo_export import ExportConfig

    return load_record(ExportConfig, find_config("export", name), overrides)


def export(
    model: str,
    config: "ExportConfig | None" = None,
    options: ModelOptions = NO_OPTIONS,
    *,
    out: Path | None = None,
    hooks: Hooks = SILENT,
) -> "list[ExportResult]":
    """Export a network to every target and precision; each pair ends in a file or a reason.

    Args:
        model: zoo name, model YAML, checkpoint of ours, or `timm:NAME`.
        config: which files, and how they are proven; None takes configs/export/default.yaml.
        options: changes to what the record or the config of the network has.
        out: folder of the files; None takes `export/` beside the checkpoint, or here without one.
        hooks: receives messages and progress.

    Raises:
        MobilezooError: the network cannot be loaded; what one target cannot do is in its result.
    """
    config = config or load_export_config()
    if out is not None:
        writable_place(out, "--out", folder=True)
    if config.optimize_for is not None:
        emulated_core(config.optimize_for, config.targets)  # before minutes of work
    loaded = load_model(model, options)
    if loaded.random_weights:
        hooks.on_message(f"{loaded.name}: random weights, norms randomised: good for latency, not for use")
    return export_network(loaded, config, out or (loaded.folder or Path()) / "export", hooks=hooks)


def export_network(
    loaded: LoadedModel, config: "ExportConfig", out: Path, *, isolate: bool = True, hooks: Hooks = SILENT
) -> "list[ExportResult]":
    """Export a loaded network to every target and precision.

    Norms of a network with random weights are changed in place, so that no branch folds away.

    Args:
        loaded: the network.
        config: which files, and how they are proven.
        out: folder of the files.
        isolate: convert in processes of their own, so that a crash costs one file.
        hooks: receives messages and progress.
    """
    from mobilezoo_export import ExportHooks, export_model

    model = spec_of(loaded)
    images = export_images(loaded, model, config, hooks)
    _settle(loaded, images.parity)
    if config.optimize_for is not None:
        return export_optimized(loaded, model, config, images, out, hooks=hooks)
    if config.max_drop is not None:
        return export_mixed(loaded, model, config, images, out, hooks=hooks)
    total = len(config.targets) * len(config.precisions)
    done = iter(range(total))

    def starting(target: str, precision: str) -> None:
        number = next(done)
        hooks.on_progress(f"{loaded.name}: {number + 1} of {total}, {target} {precision}", number, total)

    callbacks = ExportHooks(on_start=starting, check=UnitChecks(config.check, hooks))
    made = export_model(loaded.network, model, config, out, images=images.proof, isolate=isolate, hooks=callbacks)
    return with_top1_drops(loaded, config, images, made, hooks)


def bisect_model(
    model: str, config: "ExportConfig", options: ModelOptions = NO_OPTIONS, *, hooks: Hooks = SILENT
) -> "list[Finding]":
    """The first layer of each target and precision whose output diverges from PyTorch.

    Args:
        model: zoo name, model YAML, checkpoint of ours, or `timm:NAME`.
        config: targets, precisions and images.
        options: changes to what the record or the config of the network has.
        hooks: receives messages and the step under way.
    """
    from mobilezoo_export.bisect import bisect

    loaded = load_model(model, options)
    model_spec, single = spec_of(loaded), config.model_copy(update={"batch": 1})
    images: ExportImages = export_images(loaded, model_spec, config, hooks)
    _settle(loaded, images.parity)
    return [
        bisect(
            loaded.network,
            single.spec(model_spec, precision),
            target,
            images.parity,
            [images.calibration],
            hooks.on_status,
        )
        for target in config.targets
        for precision in config.precisions
    ]


def _settle(loaded: LoadedModel, images: "np.ndarray") -> None:
    """Give a fresh network norms that hide nothing and fit the images."""
    if loaded.random_weights:
        import torch

        from mobilezoo.models.randomize import as_if_trained

        as_if_trained(loaded.network, torch.from_numpy(images[:16]))


def spec_of(loaded: LoadedModel) -> "ModelSpec":
    """The description of a loaded network: name, input, labels and the origin of its weights."""
    from mobilezoo_export import ModelSpec

    return ModelSpec(
        model=loaded.name,
        resolution=loaded.resolution,
        in_chans=loaded.in_chans,
        preprocessing=loaded.preprocessing,
        labels=loaded.labels,
        checkpoint=str(loaded.checkpoint) if loaded.checkpoint else None,
        checkpoint_key=loaded.checkpoint_key,
        origin=loaded.origin,
    )
