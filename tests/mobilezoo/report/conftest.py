"""Synthetic records shaped like real ones: what a report of a finished demo holds."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobilezoo.artifacts import Artifact, InputSpec, Parity, Preprocessing
from mobilezoo.latency_report import DeviceInfo, Kind, LatencyReport, Protocol
from mobilezoo.report.search_section import SearchFound
from mobilezoo.search.objective import Objective, pareto_front
from mobilezoo.search.records import LatencyEstimate, SearchResult, TrialRecord
from mobilezoo.search.space import Space

PREPROCESSING = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def write_run(folder: Path, epochs: int, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    with (folder / "metrics.csv").open("w", newline="") as handle:
        columns = ["epoch", "train_loss", "val_loss", "val_top1", "lr", "images_per_s", "data_wait_share"]
        writer = csv.writer(handle)
        writer.writerow(columns)
        for epoch in range(epochs):
            loss = 2.4 * np.exp(-epoch / 6) + 0.12 + rng.normal(0, 0.03)
            top1 = 98.2 * (1 - np.exp(-(epoch + 1) / 4)) + rng.normal(0, 0.6)
            rate = 1e-3 * (1 + np.cos(np.pi * epoch / epochs)) / 2
            row = [
                epoch,
                loss,
                loss * 0.9 + 0.05,
                min(top1, 99),
                rate,
                rng.normal(820, 20),
                abs(rng.normal(0.03, 0.01)),
            ]
            writer.writerow(row)
    return folder


def artifact(model: str, target: str, precision: str, relative: float | None) -> Artifact:
    parity = None
    if relative is not None:
        parity = Parity(
            inputs="validation images", images=64, max_abs=relative * 3, relative=relative, snr_db=118.0,
            top1_agreement=1.0 if relative < 1e-3 else 0.97, tolerance=1e-4 if precision == "fp32" else 2e-2,
            ran_in={"onnx": "onnxruntime 1.31.1", "litert": "ai-edge-litert 2.3.0"}.get(target, "none"),
        )  # fmt: skip
    suffix = {"onnx": "onnx", "litert": "tflite", "coreml": "mlpackage"}[target]
    return Artifact(
        path=f"{model}.{precision}.{suffix}", target=target, precision=precision, model=model,
        input=InputSpec(shape=(1, 3, 64, 64)), preprocessing=PREPROCESSING, sha256="ab" * 32, size_bytes=9_120_344,
        parity=parity, why_not_runnable=None if parity else "Core ML needs macOS; the program was converted, not run",
        tools={"torch": "2.14.1", {"onnx": "onnx", "litert": "litert-torch", "coreml": "coremltools"}[target]: "9.0"},
    )  # fmt: skip


def latency(
    model: str, target: str, median_ms: float, kind: Kind, seed: int, noisy: tuple[str, ...] = ()
) -> LatencyReport:
    rng = np.random.default_rng(seed)
    samples = median_ms * (1 + rng.gamma(1.2, 0.02, 220) + (rng.random(220) < 0.02) * rng.random(220))
    runtime = {"onnx": "ONNX Runtime 1.31.1 (CPU)", "litert": "LiteRT 2.3.0 (XNNPACK)"}[target]
    return LatencyReport(
        artifact_sha256="ab" * 32, artifact=f"{model}.fp32.{target}", target=target, precision="fp32", model=model,
        device=DeviceInfo(name={"host": "laptop", "phone": "Pixel 7"}.get(kind, kind), kind=kind, runtime=runtime,
                          cpu="Example CPU at 2.8 GHz" if kind == "host" else "Cortex-X1"),
        protocol=Protocol(), samples_ms=tuple(float(x) for x in samples), load_ms=12.4, first_run_ms=median_ms * 3,
        sentinel_before_ms=1.0, sentinel_after_ms=1.01, noisy=noisy, measured_at="2026-01-01T00:00:00Z",
    )  # fmt: skip


def space() -> Space:
    stages = [
        {"stride": 1, "block": ["ds"], "kernel": [3], "width": [8, 16], "depth": [1]},
        {"stride": 2, "block": ["ds", "ir"], "kernel": [3, 5], "expansion": [3, 6], "width": [16, 24],
         "attention": ["none", "se", "coord"], "depth": [1, 2]},
        {"stride": 2, "block": ["ir"], "kernel": [3, 5], "expansion": [3, 6], "attention": ["none", "se", "coord"],
         "width": [32, 48], "depth": [2, 3, 4]},
        {"stride": 1, "block": ["cn", "ir"], "kernel": [3, 5], "expansion": [3, 6], "width": [64, 96], "depth": [1, 2]},
    ]  # fmt: skip
    return Space.parse({"resolution": [64], "stages": stages})


def search_result(trials: int = 30) -> SearchResult:
    rng, objective, records = np.random.default_rng(3), Objective(target_ms=0.6), []
    for number, point in enumerate(space().sample(rng) for _ in range(trials)):
        size = sum(stage.depth * stage.width * (stage.expansion + stage.kernel) for stage in point.stages) / 3000
        ms = float(0.2 + size / 3 + rng.normal(0, 0.01))
        top1 = float(98.5 - 6 / (1 + 2 * size) + rng.normal(0, 0.3))
        arch = tuple(f"{s.block}_r{s.depth}_k{s.kernel}_s{s.stride}_e{s.expansion:g}_c{s.width}" for s in point.stages)
        if number == 7:
            records.append(
                TrialRecord(number=7, state="failed", point=point, arch=arch, reason="ExportError: <no> & why")
            )
            continue
        estimate = LatencyEstimate(ms=ms, source="measured: LiteRT 2.3.0 (XNNPACK) on laptop")
        records.append(
            TrialRecord(
                number=number, state="complete", point=point, arch=arch, top1=top1, latency=estimate,
                reward=objective(top1, ms), engine="evolution", seconds=9.1,
            )
        )  # fmt: skip
    done = [r for r in records if r.state == "complete"]
    front = tuple(
        done[i].number for i in pareto_front([r.top1 or 0 for r in done], [r.latency.ms for r in done if r.latency])
    )
    return SearchResult(
        name="demo", engine="evolution", seed=0, space_sha256=space().sha256, space_count=space().count(),
        objective=objective, trials=tuple(records), front=front, best=max(done, key=lambda r: r.reward or 0).number,
        front_yaml=tuple(f"front/demo_{n:04d}.yaml" for n in front), best_yaml="demo_best.yaml",
    )  # fmt: skip


@pytest.fixture
def records(tmp_path: Path) -> dict[str, Any]:
    """Fields of `ReportContents`."""
    models = [
        {"name": "mobilenetv2_ca_100", "params": 2_236_682, "macs": 24_600_000, "resolution": 64, "top1": 98.06},
        {"name": "demo_best", "params": 182_400, "macs": 4_100_000, "resolution": 64, "top1": 97.5},
        {"name": "shvit_s1", "params": 6_330_000, "macs": 241_000_000, "resolution": 224, "top1": None},
    ]
    return {
        "title": "mobilezoo demo: digits",
        "models": models,
        "runs": [write_run(tmp_path / "mobilenetv2_ca_100", 24, 0), write_run(tmp_path / "demo_best", 20, 1)],
        "artifacts": [
            artifact("mobilenetv2_ca_100", "onnx", "fp32", 2.1e-6),
            artifact("mobilenetv2_ca_100", "litert", "fp32", 3.4e-6),
            artifact("mobilenetv2_ca_100", "litert", "fp32", 4.4e-2),
            artifact("mobilenetv2_ca_100", "coreml", "fp32", None),
        ],
        "latencies": [
            latency("mobilenetv2_ca_100", "onnx", 1.31, "host", 0),
            latency("mobilenetv2_ca_100", "litert", 1.12, "host", 1),
            latency("demo_best", "litert", 0.41, "host", 2, ("the sentinel moved by 5.1% (3% accepted)",)),
            latency("mobilenetv2_ca_100", "litert", 3.4, "phone", 3),
        ],
        "searches": [SearchFound(search_result())],
    }
