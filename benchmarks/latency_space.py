"""The learned predictor on a search space: random networks, exported to LiteRT, measured, predicted where held out.

Half of the networks train a predictor of this machine's time and one of the emulated core's cycles; the other half
tests them, beside multiply-adds. A third carries the host's to the "new device" (the emulated core) from 20 counts.
Resumable: files and results stay.

    python benchmarks/latency_space.py --space digits --count 200 --out runs/bench/space
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from mobilezoo.artifacts import DeviceInfo, Preprocessing, write_text
from mobilezoo_latency import Store, profile, summarize
from mobilezoo_latency.estimators.kernels import kernels_of, total_macs
from mobilezoo_latency.estimators.predictor import Measured, Predictor, train

CORE = "cortex_a76"
TRANSFER = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="digits", help="a search config")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/space"))
    args = parser.parse_args()
    files = export_networks(args.space, args.count, args.out)
    store = Store(args.out / "latency.db")
    kernels = [kernels_of(file) for file in files]
    reports = [profile(file, "host_litert", store=store) for file in files]
    host = [summarize(report)["median_ms"] for report in reports]
    counts = [profile(file, CORE, store=store).counts for file in files]
    cycles = [c.cycles / 1e6 for c in counts if c is not None]
    noisy = sum(bool(report.noisy) for report in reports)
    half = len(files) // 2
    machine = DeviceInfo(name="this machine", kind="host", runtime=reports[0].device.runtime)
    emulated = DeviceInfo(name=CORE, kind="emulated", runtime="LiteRT")
    on_host = train([Measured(k, ms) for k, ms in zip(kernels[:half], host[:half], strict=True)], machine)
    on_core = train([Measured(k, c) for k, c in zip(kernels[:half], cycles[:half], strict=True)], emulated)
    moved = train(
        [Measured(k, c) for k, c in zip(kernels[:TRANSFER], cycles[:TRANSFER], strict=True)], emulated, on_host
    )
    macs = [total_macs(k) for k in kernels]

    def held(predictor: Predictor, truth: Sequence[float]) -> str:
        return scores([predictor.predict_kernels(k).latency_ms for k in kernels[half:]], truth[half:])

    def by_macs(truth: Sequence[float]) -> str:
        slope, constant = np.polyfit(macs[:half], truth[:half], 1, w=[1 / t for t in truth[:half]])
        return scores([float(slope * m + constant) for m in macs[half:]], truth[half:])

    lines = [
        f"{len(files)} networks of `{args.space}`, {half} trained on, {noisy} host results marked as noisy",
        "",
        "| of | predictor | Spearman | MAPE | +-10% |",
        "|---|---|---|---|---|",
        f"| host ms | learned, {half} | {held(on_host, host)} |",
        f"| host ms | MACs | {by_macs(host)} |",
        f"| {CORE} cycles | learned, {half} | {held(on_core, cycles)} |",
        f"| {CORE} cycles | host + {TRANSFER} | {held(moved, cycles)} |",
        f"| {CORE} cycles | MACs | {by_macs(cycles)} |",
    ]
    text = "\n".join(lines) + "\n"
    write_text(args.out / "table.md", text)
    print(text)


def scores(guess: Sequence[float], real: Sequence[float]) -> str:
    """Spearman, MAPE and the share within 10% as table cells."""
    from scipy.stats import spearmanr

    errors = [abs(g / r - 1) for g, r in zip(guess, real, strict=True)]
    return (
        f"{float(spearmanr(guess, real).statistic):.3f} | {fmean(errors):.1%} | {fmean(e <= 0.1 for e in errors):.1%}"
    )


def export_networks(space: str, count: int, out: Path) -> list[Path]:
    """`count` random networks of a space as LiteRT files; those that are there already are kept."""
    import torch

    from mobilezoo.models import create_model
    from mobilezoo.models.randomize import randomize_norms
    from mobilezoo.search.networks import load_search_config, model_config
    from mobilezoo_export import ExportSpec, export_model

    torch.set_num_threads(1)
    config = load_search_config(space)
    rng = np.random.default_rng(0)
    plain = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    files = []
    for number in range(count):
        point = config.space.sample(rng)
        name = f"net{number:04d}"
        path = out / f"{name}.fp32.tflite"
        if not path.with_name(path.name + ".json").is_file():
            torch.manual_seed(number)
            network = create_model(model_config(config.space, point, name), num_classes=10).eval()
            randomize_norms(network, torch.Generator().manual_seed(number))
            side = point.resolution
            spec = ExportSpec(model=name, resolution=(side, side), preprocessing=plain)
            (result,) = export_model(network, spec, ["litert"], ["fp32"], out, isolate=False)
            if result.path is None:
                raise SystemExit(f"{name}: {result.reason}")
        files.append(path)
    return files


if __name__ == "__main__":
    main()
