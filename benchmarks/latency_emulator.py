"""How well emulated cores predict real phones: rank correlation and error, beside multiply-adds and host time.

Needs the table of phone latencies (qed-usc/mobile-ml-benchmark, MIT) and its list of equal timm networks, which are not
part of the repository, and a prepared emulator (`mobilezoo device setup emulator`). Resumable: files and counts stay.

    python benchmarks/latency_emulator.py --phones ../shared/phones --out runs/bench/emulator
"""

import argparse
import csv
import math
import resource
from pathlib import Path
from statistics import fmean, median

from mobilezoo.artifacts import Preprocessing
from mobilezoo.files import write_text
from mobilezoo.latency_report import LatencyReport
from mobilezoo_latency import Store, load_device, profile, summarize
from mobilezoo_latency.emulator.calibration import Known, fit, left_out_ms
from mobilezoo_latency.emulator.counting import count_blocks
from mobilezoo_latency.emulator.device import EmulatedDevice
from mobilezoo_latency.emulator.layout import find_emulator
from mobilezoo_latency.emulator.pricing import floating_or_integer_macs

BOARDS = {
    # board name in the table, cores → emulated core
    ("pixel4", "1large"): "cortex_a76",
    ("pixel4", "1med"): "cortex_a76",
    ("pixel4", "1small"): "cortex_a55",
    ("s10", "1med"): "cortex_a76",
    ("s10", "1small"): "cortex_a55",
    ("mi8se", "1small"): "cortex_a55",
    ("a03s", "1large"): "cortex_a53",
    ("a03s", "1small"): "cortex_a53",
}
GROUPED = ("regnet", "resnext")
"""The table's converter split grouped convolutions into many: no absolute comparison (see the table's README)."""
MAX_GMACS = 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--phones", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/emulator"))
    parser.add_argument("--max-gmacs", type=float, default=MAX_GMACS)
    parser.add_argument("--host", action="store_true", help="also time every network on this machine (screen protocol)")
    parser.add_argument("--result", type=Path, help="a second place for the table, such as benchmarks/results/...")
    args = parser.parse_args()
    networks = equal_networks(args.phones, args.max_gmacs)
    files = {name: export(timm_name, args.out) for name, (timm_name, _) in networks.items()}
    store = Store(args.out / "latency.db")
    cores = sorted(set(BOARDS.values()))
    counted = {core: {n: profile(f, core, store=store) for n, f in files.items()} for core in cores}
    host = {n: profile(f, "host", store=store) for n, f in files.items()} if args.host else {}
    real = phone_times(args.phones)
    lines = [
        "| board | core | predictor | networks | Spearman | error, left out | +-10% | fit |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for board, core in BOARDS.items():
        times = {n: real[(*board, n)] for n in networks if (*board, n) in real}
        lines += board_rows(board, core, times, networks, counted[core], host)
    lines += ["", *cost_lines(files, {name: macs for name, (_, macs) in networks.items()})]
    text = "\n".join(lines) + "\n"
    write_text(args.out / "table.md", text)
    if args.result:
        write_text(args.result, text)
    print(text)


def cost_lines(files: dict[str, Path], macs: dict[str, float], core: str = "cortex_a76") -> list[str]:
    """CPU seconds of the emulation per GMAC, and whether a second count is the same to the instruction."""
    device = load_device(core)
    assert isinstance(device, EmulatedDevice)
    emulator = find_emulator()
    lines = [
        f"| counted twice on {core} | GMACs | instructions | same again | CPU s per GMAC | multiply-adds found |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(files, key=lambda n: macs[n])[:: max(1, len(files) // 5)]:
        before = cpu_seconds()
        first = count_blocks(emulator, device.config, files[name])
        spent = cpu_seconds() - before
        second = count_blocks(emulator, device.config, files[name])
        same = (first.instructions, sorted(first.blocks), first.misses) == (
            second.instructions,
            sorted(second.blocks),
            second.misses,
        )
        found = floating_or_integer_macs(emulator, device.config, first.blocks) / macs[name]
        cells = [name, f"{macs[name] / 1e9:.2f}", f"{first.instructions:,}", "yes" if same else "NO"]
        cells += [f"{spent / (macs[name] / 1e9):.1f}", f"{found:.1%} of the MACs"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cpu_seconds() -> float:
    """CPU time of ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def equal_networks(phones: Path, max_gmacs: float) -> dict[str, tuple[str, float]]:
    """Table name → (timm name, MACs) of networks that are equal, ungrouped convolutional and small enough."""
    found = {}
    with (phones / "model_equivalents_timm.csv").open() as handle:
        for row in csv.DictReader(handle):
            macs = float(row["equiv_flops_M"]) / 2 * 1e6
            grouped = row["model"].startswith(GROUPED)
            transformer = "-" in row["model"]
            if row["match"] == "True" and not grouped and not transformer and macs <= max_gmacs * 1e9:
                found[row["model"]] = row["equiv"], macs
    return dict(sorted(found.items(), key=lambda item: item[1][1]))


def phone_times(phones: Path) -> dict[tuple[str, str, str], float]:
    """(board, cores, table name) → fp32 milliseconds."""
    with (phones / "mobile_ml_benchmark.csv").open() as handle:
        rows = [row for row in csv.DictReader(handle) if row["set"] == "real_cnn" and row["precision"] == "fp32"]
    return {(row["device"], row["cores"], row["model"]): float(row["mean_ms"]) for row in rows}


def export(name: str, out: Path) -> Path:
    """A LiteRT file of a timm (or `tv:` torchvision) network with random weights and no folded branch."""
    path = out / f"{name.removeprefix('tv:')}.fp32.tflite"
    if path.with_name(path.name + ".json").is_file():
        return path
    import timm
    import torch
    import torchvision

    from mobilezoo.models.randomize import randomize_norms
    from mobilezoo_export import ExportConfig, ModelSpec, export_model

    torch.set_num_threads(1)
    torch.manual_seed(0)
    if name.startswith("tv:"):
        network = getattr(torchvision.models, name.removeprefix("tv:"))(weights=None)
    else:
        network = timm.create_model(name, pretrained=False)
    network = randomize_norms(network.eval(), torch.Generator().manual_seed(0))
    plain = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    spec = ModelSpec(model=name.removeprefix("tv:"), resolution=(224, 224), preprocessing=plain)
    (result,) = export_model(network, spec, ExportConfig(targets=("litert",), precisions=("fp32",)), out)
    if result.path is None:
        raise SystemExit(f"{name}: {result.reason}")
    return Path(result.path)


def board_rows(
    board: tuple[str, str],
    core: str,
    times: dict[str, float],
    networks: dict[str, tuple[str, float]],
    counted: dict[str, LatencyReport],
    host: dict[str, LatencyReport],
) -> list[str]:
    """One table row per predictor."""
    names = list(times)
    real = [times[n] for n in names]
    counts = {n: c for n in names if (c := counted[n].counts) is not None}
    known = [Known(n, counts[n], times[n]) for n in names]
    calibration = fit(known, basis=" ".join(board), llvm=find_emulator().installed.llvm)
    predictors = {
        "MACs": scaled([networks[n][1] for n in names], real),
        "instructions": scaled([k.counts.instructions for k in known], real),
        "llvm-mca cycles": scaled([k.counts.cycles for k in known], real),
        "cycles + memory": [left_out_ms(known, i) for i in range(len(known))],
    }
    if host:
        predictors["host time"] = scaled([summarize(host[n])["median_ms"] for n in names], real)
    cal = calibration
    fitted = f"{cal.ms_per_megacycle:.4f} ms/Mcycle, {cal.dram_cycles:.0f} per line"
    fitted += f", {cal.low_ratio:.3f}..{cal.high_ratio:.3f}"
    rows = []
    for name, guess in predictors.items():
        errors = [abs(g / r - 1) for g, r in zip(guess, real, strict=True)]
        near = sum(e <= 0.1 for e in errors) / len(errors)
        cells = [" ".join(board), core, name, str(len(names)), f"{spearman(guess, real):.3f}", f"{fmean(errors):.1%}"]
        cells += [f"{near:.0%}", fitted if name == "cycles + memory" else ""]
        rows.append(f"| {' | '.join(cells)} |")
    return rows


def scaled(raw: list[float], real: list[float]) -> list[float]:
    """Each value times the median log ratio of all others."""
    logs = [math.log(r / x) for x, r in zip(raw, real, strict=True)]
    return [x * math.exp(median(logs[:i] + logs[i + 1 :])) for i, x in enumerate(raw)]


def spearman(a: list[float], b: list[float]) -> float:
    """Rank correlation."""
    from scipy.stats import spearmanr

    return float(spearmanr(a, b).statistic)


if __name__ == "__main__":
    main()
