"""A block table, the learned predictor and multiply-adds on the same networks of a search space, on this machine.

Every network is left out of the fit that predicts it: of the table's scale and overhead, of the predictor's training,
of the line through multiply-adds. Resumable: files and results stay.

    python benchmarks/latency_table.py --space digits --count 30 --out runs/latency/digits
"""

import argparse
from pathlib import Path

import numpy as np

from mobilezoo.cli.latency_estimates import load_space
from mobilezoo.files import write_text
from mobilezoo.workflows.latency_blocks import block_keys, export_blocks, sample_networks
from mobilezoo_latency import Store, profile
from mobilezoo_latency.estimators.kernels import kernels_of, total_macs
from mobilezoo_latency.estimators.predictor import Measured, train
from mobilezoo_latency.estimators.speed import at_one_speed
from mobilezoo_latency.estimators.table import WholeNetwork, measure_table

DEVICE = "host_litert"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="digits", help="a search config")
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path("runs/latency/digits"))
    parser.add_argument("--result", type=Path, help="a second place for the table")
    args = parser.parse_args()
    space = load_space(args.space)
    networks = sample_networks(space, args.count, args.out, print)
    blocks = export_blocks(space, [n.point for n in networks], args.out / "blocks", print)
    store = Store(args.out / "latency.db")
    keys = [block_keys(space, n.point) for n in networks]
    table = measure_table(blocks, DEVICE, store=store, on_message=print)
    reports = [profile(n.path, DEVICE, store=store) for n in networks]
    real = at_one_speed(reports)
    rows = [Measured(kernels_of(n.path), ms) for n, ms in zip(networks, real, strict=True)]
    macs = [total_macs(row.kernels) for row in rows]
    everyone = range(len(real))

    def others(index: int) -> list[int]:
        return [i for i in everyone if i != index]

    by_table, by_predictor, by_macs = [], [], []
    for index in everyone:
        rest = others(index)
        fitted = table.fit_overhead([WholeNetwork(keys[i], real[i]) for i in rest])
        by_table.append(fitted.compose(keys[index]).latency_ms)
        predictor = train([rows[i] for i in rest], reports[0].device)
        by_predictor.append(predictor.predict_kernels(rows[index].kernels).latency_ms)
        weights = [1 / real[i] for i in rest]
        slope, constant = np.polyfit([macs[i] for i in rest], [real[i] for i in rest], 1, w=weights)
        by_macs.append(float(slope * macs[index] + constant))
    plain = [table.sum_ms(k) for k in keys]
    noisy = sum(bool(report.noisy) for report in reports)
    lines = [
        f"{len(real)} networks of `{args.space}`, {min(real):.3f} to {max(real):.3f} ms on {reports[0].device.cpu} "
        f"({reports[0].device.runtime}), {noisy} marked as noisy; {len(blocks)} blocks",
        "",
        "| predictor, each network left out | Spearman | MAPE | +-10% |",
        "|---|---|---|---|",
        line("block table: scale and overhead fitted", by_table, real),
        line("block table: plain sum", plain, real),
        line("learned predictor", by_predictor, real),
        line("MACs, a line", by_macs, real),
    ]
    text = "\n".join(lines) + "\n"
    write_text(args.out / "table.md", text)
    if args.result:
        write_text(args.result, text)
    print(text)


def line(what: str, guess: list[float], real: list[float]) -> str:
    """Spearman, MAPE and the share within 10% as a table row."""
    from scipy.stats import spearmanr

    errors = np.asarray([abs(g / r - 1) for g, r in zip(guess, real, strict=True)])
    rho = float(spearmanr(guess, real).statistic)
    return f"| {what} | {rho:.3f} | {errors.mean():.1%} | {(errors <= 0.1).mean():.1%} |"


if __name__ == "__main__":
    main()
