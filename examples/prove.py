"""Options and last part of detect.py and segment.py: a network's files, their score beside PyTorch's, latency."""

import argparse
import time
from collections.abc import Callable, Sequence
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


def options(what: str, arguments: Sequence[str] | None, steps: int, out: Path) -> argparse.Namespace:
    """The options of both examples, with the defaults of one."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--backbone", default="lcnet_050", help="any name timm.create_model knows")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--size", type=int, default=96, help="pixels per side of the input")
    parser.add_argument("--photos", type=Path, help="folder of photographs; default: scikit-learn's two")
    parser.add_argument("--out", type=Path, default=out)
    return parser.parse_args(arguments)


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
