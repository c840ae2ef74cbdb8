"""The learned predictor on a search space: random networks, exported to LiteRT, measured, predicted where held out.

Every network is held out once (folds of a tenth): a predictor is trained on the others, and so is a line through
multiply-adds. Then 20 counts carry the host's predictor to a "new device", the emulated core, whose other networks test
it. Resumable: files and results stay.

    python benchmarks/latency_space.py --space mnasnet --count 200 --out runs/bench/space
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from mobilezoo.cli.latency_estimates import load_space
from mobilezoo.files import write_text
from mobilezoo.latency_report import DeviceInfo, Estimate, LatencyReport
from mobilezoo.workflows.latency_blocks import sample_networks
from mobilezoo_latency import Store, profile, summarize
from mobilezoo_latency.estimators.kernels import Kernel, kernels_of, total_macs
from mobilezoo_latency.estimators.predictor import FOLDS, Measured, Predictor, train
from mobilezoo_latency.estimators.speed import at_one_speed, sentinel_ms

CORE = "cortex_a76"
TRANSFER = 20
HEADER = (
    "| of | predictor | networks held out | Spearman | MAPE | +-10% | interval holds |",
    "|---|---|---|---|---|---|---|",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--space", default="digits", help="a search config")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--counted", type=int, default=80, help="networks counted on the emulated core")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/space"))
    parser.add_argument("--result", type=Path, help="a second place for the table")
    args = parser.parse_args()
    files = [s.path for s in sample_networks(load_space(args.space), args.count, args.out, print)]
    store = Store(args.out / "latency.db")
    kernels = [kernels_of(file) for file in files]
    reports = [measured(file, store) for file in files]
    raw = [summarize(report)["median_ms"] for report in reports]
    host = at_one_speed(reports)
    sentinels = [ms for report in reports if (ms := sentinel_ms(report)) is not None]
    counts = [profile(file, CORE, store=store).counts for file in files[: args.counted]]
    cycles = [c.cycles / 1e6 for c in counts if c is not None]
    noisy = sum(bool(report.noisy) for report in reports)
    info = reports[0].device
    lines = [
        f"{len(files)} networks of `{args.space}`, {min(host):.2f} to {max(host):.2f} ms on {info.cpu} "
        f"({info.runtime}); {noisy} host results stayed marked as noisy after three attempts; between measurements "
        f"the machine's speed moved by {max(sentinels) / min(sentinels) - 1:.0%} (sentinel): times at one speed",
        "",
        *HEADER,
        row("host ms", "learned", folds(kernels, host, info), host),
        row("host ms", "MACs, a line", macs_line(kernels, host), host),
        row("host ms as measured", "learned", folds(kernels, raw, info), raw),
        row("host ms as measured", "MACs, a line", macs_line(kernels, raw), raw),
        *core_rows(kernels, host, cycles, info),
    ]
    text = "\n".join(lines) + "\n"
    write_text(args.out / "table.md", text)
    if args.result:
        write_text(args.result, text)
    print(text)


def measured(file: Path, store: Store) -> LatencyReport:
    """The kept result, be it noisy: three attempts were made then."""
    from mobilezoo_latency import load_artifact

    sha = load_artifact(file).record.sha256
    known = [r for _, r in store.rows(artifact_sha256=sha, kind="host")]
    quiet = [r for r in known if not r.noisy]
    return (quiet or known or [profile(file, "host_litert", store=store)])[-1]


def folds(kernels: Sequence[Sequence[Kernel]], ms: Sequence[float], info: DeviceInfo) -> list[Estimate]:
    """An estimate of every network by a predictor that never saw it."""
    fold = np.random.default_rng(0).permutation(len(ms)) % FOLDS
    found: list[Estimate | None] = [None] * len(ms)
    for k in range(FOLDS):
        rows = [Measured(kernels[i], ms[i]) for i in np.flatnonzero(fold != k)]
        predictor = train(rows, info)
        for i in np.flatnonzero(fold == k):
            found[i] = predictor.predict_kernels(kernels[i])
    return [estimate for estimate in found if estimate is not None]


def macs_line(kernels: Sequence[Sequence[Kernel]], ms: Sequence[float]) -> list[float]:
    """Milliseconds by a line through multiply-adds, fitted to the other folds."""
    macs = np.asarray([total_macs(k) for k in kernels])
    real = np.asarray(ms)
    fold = np.random.default_rng(0).permutation(len(ms)) % FOLDS
    guess = np.empty(len(ms))
    for k in range(FOLDS):
        rest = fold != k
        slope, constant = np.polyfit(macs[rest], real[rest], 1, w=1 / real[rest])
        guess[~rest] = slope * macs[~rest] + constant
    return [float(value) for value in guess]


def core_rows(
    kernels: Sequence[Sequence[Kernel]], host: Sequence[float], cycles: Sequence[float], info: DeviceInfo
) -> list[str]:
    """The emulated core as a new device: the host's predictor carried over by TRANSFER counts, and without it."""
    if len(cycles) <= TRANSFER:
        return []
    emulated = DeviceInfo(name=CORE, kind="emulated", runtime="LiteRT")
    # The networks counted are left out of the host's predictor: nothing is known of the test networks at all.
    source = train([Measured(k, ms) for k, ms in zip(kernels[len(cycles) :], host[len(cycles) :], strict=True)], info)
    few = [Measured(k, c) for k, c in zip(kernels[:TRANSFER], cycles[:TRANSFER], strict=True)]
    test, real = kernels[TRANSFER : len(cycles)], cycles[TRANSFER:]

    def by(predictor: Predictor) -> list[Estimate]:
        return [predictor.predict_kernels(k) for k in test]

    macs = [total_macs(k) for k in kernels[: len(cycles)]]
    slope, constant = np.polyfit(macs[:TRANSFER], cycles[:TRANSFER], 1, w=[1 / c for c in cycles[:TRANSFER]])
    of = f"{CORE} M cycles"
    return [
        row(of, f"host's + {TRANSFER}", by(train(few, emulated, source)), real),
        row(of, f"{TRANSFER} alone", by(train(few, emulated)), real),
        row(of, f"MACs, a line through {TRANSFER}", [float(slope * m + constant) for m in macs[TRANSFER:]], real),
        row(of, f"host ms times a factor from {TRANSFER}", scaled(host[: len(cycles)], cycles), real),
    ]


def scaled(host: Sequence[float], cycles: Sequence[float]) -> list[float]:
    """Host milliseconds times the median ratio of the first TRANSFER networks."""
    factor = float(np.median([c / h for c, h in zip(cycles[:TRANSFER], host[:TRANSFER], strict=True)]))
    return [factor * ms for ms in host[TRANSFER:]]


def row(of: str, what: str, guess: Sequence[Estimate | float], real: Sequence[float]) -> str:
    """Spearman, MAPE, share within 10% and, where there is one, how often the interval held."""
    from scipy.stats import spearmanr

    values = [g.latency_ms if isinstance(g, Estimate) else g for g in guess]
    errors = [abs(g / r - 1) for g, r in zip(values, real, strict=True)]
    inside = [g.low_ms <= r <= g.high_ms for g, r in zip(guess, real, strict=True) if isinstance(g, Estimate)]
    held = f"{fmean(inside):.1%}" if inside else ""
    rho = float(spearmanr(values, real).statistic)
    near = fmean(e <= 0.1 for e in errors)
    return f"| {of} | {what} | {len(real)} | {rho:.3f} | {fmean(errors):.1%} | {near:.1%} | {held} |"


if __name__ == "__main__":
    main()
