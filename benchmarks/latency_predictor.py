"""The learned predictor on real phones: NAS-Bench-201's networks on a Pixel 3 (HW-NAS-Bench; HELP, MIT).

Trains on a random sample, tests on networks it never saw, beside multiply-adds; then transfers to other phones from 20
measurements. Only cells without a `none` edge (4,096 of 15,625): the published times of the others follow neither the
whole graph nor its live part. The data is not part of the repository.

    python benchmarks/latency_predictor.py --data ../shared/phones/nasbench201_phones.csv.gz
"""

import argparse
import csv
import gzip
import random
from pathlib import Path
from statistics import fmean

import numpy as np

from mobilezoo.latency_report import DeviceInfo
from mobilezoo_latency.estimators.kernels import Kernel, conv, total_macs
from mobilezoo_latency.estimators.predictor import Measured, Predictor, train

STAGES = ((16, 32), (32, 16), (64, 8))
"""(channels, side in pixels) of the three stages, five cells each (Dong and Yang 2020, section 2.1)."""
CELLS = 5
OTHERS = ("pixel2", "samsung_a50", "samsung_s7", "essential_ph_1")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=2000)
    args = parser.parse_args()
    with gzip.open(args.data, "rt") as handle:
        rows = list(csv.DictReader(handle))
    random.Random(0).shuffle(rows)
    rows = [row for row in rows if "none" not in row["arch_str"]]
    chosen, held = rows[: args.train], rows[args.train : args.train + args.test]
    print("| phone | predictor | trained on | Spearman | MAPE | +-10% | 90% interval holds |")
    print("|---|---|---|---|---|---|---|")
    pixel3 = fitted(chosen, "pixel3")
    show("pixel3", f"learned, {len(chosen)}", held, pixel3)
    show_macs("pixel3", chosen, held)
    for phone in OTHERS:
        show(phone, "Pixel 3 + 20 measured", held, fitted(chosen[:20], phone, pixel3))
        show_macs(phone, chosen[:20], held)


def fitted(rows: list[dict[str, str]], phone: str, source: Predictor | None = None) -> Predictor:
    """A predictor of one phone."""
    measured = [Measured(network(row["arch_str"]), float(row[f"{phone}_ms"])) for row in rows]
    return train(measured, DeviceInfo(name=phone, kind="phone", runtime="TFLite"), source)


def show(phone: str, what: str, held: list[dict[str, str]], predictor: Predictor) -> None:
    """One line of the table."""
    estimates = [predictor.predict_kernels(network(row["arch_str"])) for row in held]
    real = [float(row[f"{phone}_ms"]) for row in held]
    inside = fmean(e.low_ms <= r <= e.high_ms for e, r in zip(estimates, real, strict=True))
    print(line(phone, what, [e.latency_ms for e in estimates], real, f"{inside:.1%}"))


def show_macs(phone: str, rows: list[dict[str, str]], held: list[dict[str, str]]) -> None:
    """The same for a straight line through multiply-adds."""
    macs = [total_macs(network(row["arch_str"])) for row in rows]
    weights = [1 / float(row[f"{phone}_ms"]) for row in rows]
    slope, constant = np.polyfit(macs, [float(row[f"{phone}_ms"]) for row in rows], 1, w=weights)
    guess = [slope * total_macs(network(row["arch_str"])) + constant for row in held]
    print(line(phone, f"MACs, line through {len(rows)}", guess, [float(row[f"{phone}_ms"]) for row in held], ""))


def line(phone: str, what: str, guess: list[float], real: list[float], inside: str) -> str:
    """Spearman, MAPE and the share within 10% as a table row."""
    from scipy.stats import spearmanr

    errors = [abs(g / r - 1) for g, r in zip(guess, real, strict=True)]
    near = fmean(e <= 0.1 for e in errors)
    rho = float(spearmanr(guess, real).statistic)
    return f"| {phone} | {what} | {len(real)} held out | {rho:.3f} | {fmean(errors):.1%} | {near:.1%} | {inside} |"


def network(arch: str) -> list[Kernel]:
    """Kernels of a NAS-Bench-201 network from its cell's string."""
    edges = parse(arch)
    kernels = [conv(3, 3, 16, 32, 32)]
    for stage, (channels, side) in enumerate(STAGES):
        if stage:
            before = channels // 2
            kernels += [conv(3, before, channels, side, side, stride=2), conv(3, channels, channels, side, side)]
            kernels += [conv(1, before, channels, side, side), elementwise(channels, side)]
        kernels += [kernel for _ in range(CELLS) for kernel in cell(edges, channels, side)]
    return [*kernels, Kernel("reduce", 0.0, 4.0 * 64 * 64, 0.0), Kernel("dense", 640.0, 300.0, 2560.0)]


def parse(arch: str) -> list[tuple[int, int, str]]:
    """(from, to, operation) of each edge of `|op~0|+|op~0|op~1|+...`."""
    edges = []
    for to, node in enumerate(arch.split("+"), 1):
        for item in node.strip("|").split("|"):
            name, _, start = item.partition("~")
            edges.append((int(start), to, name))
    return edges


def cell(edges: list[tuple[int, int, str]], channels: int, side: int) -> list[Kernel]:
    """One cell: ReLU, convolution (its norm folded) per convolution edge, pools, and a sum per extra input."""
    kernels = []
    for _, _, name in edges:
        if name.startswith("nor_conv"):
            k = 3 if name.endswith("3x3") else 1
            kernels += [elementwise(channels, side, inputs=1), conv(k, channels, channels, side, side)]
        elif name.startswith("avg_pool"):
            kernels.append(Kernel("reduce", 0.0, 8.0 * channels * side * side, 0.0))
    sums = len(edges) - len({to for _, to, _ in edges})
    return kernels + [elementwise(channels, side)] * sums


def elementwise(channels: int, side: int, inputs: int = 2) -> Kernel:
    """A sum (two inputs) or an activation (one)."""
    return Kernel("elementwise", 0.0, 4.0 * (inputs + 1) * channels * side * side, 0.0)


if __name__ == "__main__":
    main()
