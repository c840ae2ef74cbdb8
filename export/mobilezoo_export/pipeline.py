"""`export_model`: one network to every target and precision of a config."""

from pathlib import Path

from torch import nn

from mobilezoo.artifacts import file_stem
from mobilezoo_export.config import ExportConfig
from mobilezoo_export.convert import Converters
from mobilezoo_export.records import ExportHooks, ExportResult, ExportSpec, ModelSpec, ProofImages
from mobilezoo_export.registry import load_exporter
from mobilezoo_export.session import ExportSession


def export_model(
    network: nn.Module,
    model: ModelSpec,
    config: ExportConfig,
    out_dir: str | Path,
    *,
    images: ProofImages | None = None,
    isolate: bool | Converters = True,
    hooks: ExportHooks | None = None,
) -> list[ExportResult]:
    """Export a network to every target and precision of a config.

    Args:
        network: takes float32 NCHW images, returns logits (N, classes); not changed.
        model: the network's name, input and labels.
        config: targets, precisions, batch size and options of the files; its data is not read here.
        out_dir: folder of the files.
        images: images for parity and calibration; by default crops of sample photographs, and no calibration.
        isolate: True: each converter runs in a worker process; False: in this process; Converters: in workers that
            the caller keeps for many networks.
        hooks: callbacks before and after each file.

    Returns:
        One result per target and precision, in order; what a target cannot do is a result with the reason.

    Raises:
        ExportError: the network cannot be traced, or the images do not fit it.
        UnknownNameError: no such target.
    """
    assert not isinstance(model, ExportSpec), "batch size, precision and options come from the config"
    exporters = {target: load_exporter(target) for target in config.targets}
    hooks = hooks or ExportHooks()
    results: list[ExportResult] = []
    with ExportSession(network, config.spec(model, config.precisions[0]), images, isolate=isolate) as session:
        for target, exporter in exporters.items():
            for precision in config.precisions:
                if hooks.on_start:
                    hooks.on_start(target, precision)
                path = Path(out_dir) / f"{file_stem(model.model)}.{precision}{exporter.suffix}"
                spec = config.spec(model, precision)
                results.append(session.export(target, spec, path, overwrite=config.overwrite, check=hooks.check))
                if hooks.on_result:
                    hooks.on_result(results[-1])
    return results
