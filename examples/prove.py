"""The last part of detect.py and segment.py: files of a trained network, their score beside PyTorch's, latency."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from digits_on_photos import Scene, Scenes
from PIL import Image
from torch import nn

import mobilezoo
from mobilezoo.latency_report import LatencyReport
from mobilezoo_export import ExportConfig, ModelSpec, ProofImages, export_model, load_runner

SCENES = 200
"""Held-out scenes that are scored."""
CALIBRATION = 64
PARITY = 16
Score = Callable[[np.ndarray, list[Scene]], dict[str, float]]


def prove(network: nn.Module, spec: ModelSpec, held_out: Scenes, score: Score, out: Path) -> None:
    """Export to LiteRT and ONNX, in float and int8, and print a line for PyTorch and for each file.

    Args:
        network: trained.
        spec: its name, input and labels.
        held_out: scenes that it was not trained on.
        score: outputs and scenes to named numbers.
        out: folder of the files, and of three scenes to try them on.
    """
    out.mkdir(parents=True, exist_ok=True)
    x, scenes = held_out.batch(SCENES)
    for i, scene in enumerate(scenes[:3]):
        pixels = (scene.pixels * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(out / f"scene{i}.png")
    torch.save(network.eval().state_dict(), out / f"{spec.model}.pt")
    with torch.no_grad():
        answers = np.concatenate([network(part).numpy() for part in x.split(50)])
    print(f"{'':28s} {_line(score(answers, scenes))}")
    images = ProofImages(
        parity=x[:PARITY].numpy(), parity_name="held-out scenes", calibration=held_out.batch(CALIBRATION)[0].numpy()
    )
    config = ExportConfig(targets=("litert", "onnx"), precisions=("fp32", "int8"), overwrite=True)
    for result in export_model(network, spec, config, out, images=images):
        if result.path is None or result.artifact is None or result.artifact.parity is None:
            print(f"{result.target} {result.precision}: {result.reason}")
            continue
        started = time.perf_counter()
        scored = _line(score(load_runner(Path(result.path)).run(x.numpy()), scenes))
        print(f"scored in {time.perf_counter() - started:.0f} s")
        report = mobilezoo.profile(result.path, device="host")
        assert isinstance(report, LatencyReport)
        parity = result.artifact.parity
        same = f"{100 * parity.top1_agreement:.1f} % of places alike, {parity.snr_db:.0f} dB"
        print(f"{Path(result.path).name:28s} {scored}  {same}  {np.median(report.samples_ms):.2f} ms on this machine")


def _line(numbers: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.1f}" for name, value in numbers.items())
