"""Calibration of emulated cores to boards that ran the same runtime (LiteRT, formerly TFLite, with XNNPACK).

`board_latency.csv` holds published single-thread latencies with source and licence: EfficientDet-Lite, fp32 and int8.
The networks come from `effdet` (pip install effdet); the detection step behind them is left out. Needs a prepared
emulator. Resumable: files and counts stay in --out.

    python benchmarks/latency_boards.py --max-gmacs 8 --result benchmarks/results/latency_boards.md
"""

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from common import Kept, export_unproven
from latency_emulator import scaled

from mobilezoo.artifacts import Preprocessing
from mobilezoo.files import write_text
from mobilezoo.latency_report import Counts
from mobilezoo_latency import load_device
from mobilezoo_latency.emulator.calibration import MIN_NETWORKS, Known, fit, left_out_ms
from mobilezoo_latency.emulator.cores import Calibration
from mobilezoo_latency.emulator.counting import count_blocks
from mobilezoo_latency.emulator.device import EmulatedDevice, estimate_of
from mobilezoo_latency.emulator.layout import find_emulator
from mobilezoo_latency.emulator.pricing import cycles_of, floating_or_integer_macs

TABLE = Path(__file__).with_name("board_latency.csv")
IMAGES = 8
"""Photographs for int8 calibration and for the comparison with PyTorch."""


class BoardLatency(NamedTuple):
    """One published latency."""

    source: str
    board: str
    core: str
    runtime: str
    precision: str
    model: str
    resolution: int
    ms: float


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bench/boards"))
    parser.add_argument("--max-gmacs", type=float, default=8.0, help="leave larger networks out: 5 s of CPU per GMAC")
    parser.add_argument("--cores", default="cortex_a76,cortex_a72")
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--result", type=Path, help="a second place for the table, such as benchmarks/results/...")
    args = parser.parse_args()
    cores, precisions = args.cores.split(","), args.precisions.split(",")
    rows = [row for row in latencies() if row.core in cores and row.precision in precisions]
    kept = Kept(args.out / "cells.jsonl")
    for model, resolution in dict.fromkeys((row.model, row.resolution) for row in rows):
        name = f"{model}/macs"
        if kept(name, lambda m=model, r=resolution: {"macs": macs_of(m, r)})["macs"] > args.max_gmacs * 1e9:
            rows = [row for row in rows if row.model != model]
    counted = {row: count(row, args.out, kept) for row in rows}
    lines = [
        "| board | core | precision | conversion from | networks | error | by network |",
        "|---|---|---|---|---|---|---|",
    ]
    below = []
    for core in dict.fromkeys(row.core for row in rows):
        table, block = board_rows({row: counts for row, counts in counted.items() if row.core == core})
        lines += table
        below += block
    text = "\n".join([*lines, "", *below]) + "\n"
    write_text(args.out / "table.md", text)
    if args.result:
        write_text(args.result, text)
    print(text)


def latencies() -> list[BoardLatency]:
    """The published single-thread latencies, smallest network first."""
    with TABLE.open(encoding="utf-8") as handle:
        table = [row for row in csv.DictReader(handle) if row["threads"] == "1"]
    fields = BoardLatency._fields[:-2]
    return [BoardLatency(*(row[name] for name in fields), int(row["resolution"]), float(row["ms"])) for row in table]


def network_of(model: str) -> Any:
    """EfficientDet-Lite with random weights: (1, anchors, 90 scores and 4 coordinates)."""
    import effdet
    import torch
    from torch import nn

    class Detector(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = effdet.create_model(model, pretrained=False, pretrained_backbone=False)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores, boxes = (
                torch.cat([maps.permute(0, 2, 3, 1).reshape(len(images), -1, width) for maps in levels], 1)
                for levels, width in zip(self.network(images), (90, 4), strict=True)
            )
            return torch.cat((scores.sigmoid(), boxes), 2)

    torch.manual_seed(0)
    return Detector().eval()


def macs_of(model: str, resolution: int) -> float:
    """Multiply-adds of one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network = network_of(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, resolution, resolution, device="meta"))
    return counter.get_total_flops() / 2


def count(row: BoardLatency, out: Path, kept: Kept) -> Counts:
    """Counts of one network on the row's core."""

    cell = kept(f"{row.model}/{row.precision}/{row.core}", lambda: counts_of(row, file_of(row, out)).model_dump())
    return Counts(**{name: cell[name] for name in Counts.model_fields if name in cell})


def counts_of(row: BoardLatency, path: Path) -> Counts:
    """Counts of one file on the row's core."""
    device, emulator = load_device(row.core), find_emulator()
    assert isinstance(device, EmulatedDevice)
    counted = count_blocks(emulator, device.config, path)
    return Counts(
        instructions=counted.instructions,
        cycles=cycles_of(emulator, device.config, counted.blocks),
        dram_lines=counted.misses[-1] if counted.misses else None,
        macs=floating_or_integer_macs(emulator, device.config, counted.blocks),
    )


def file_of(row: BoardLatency, out: Path) -> Path:
    """The LiteRT file of one precision.

    The network is fresh: no norm of a fresh EfficientDet is zero, so no branch is folded away. A file whose answers are
    out of tolerance is taken all the same: deep networks with random weights multiply rounding (fp32 of Lite3 by 1.7
    times what is allowed), and how long a file takes does not depend on values.
    """
    path = out / f"{row.model}.{row.precision}.tflite"
    if path.is_file():
        return path
    import torch

    from mobilezoo_export import ExportConfig, ModelSpec, ProofImages, export_model
    from mobilezoo_export.images import SAMPLE_NAME, sample_images

    torch.set_num_threads(1)
    plain = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    model = ModelSpec(model=row.model, resolution=(row.resolution,) * 2, preprocessing=plain)
    images = sample_images(model, IMAGES)
    network = network_of(row.model)
    config = ExportConfig(targets=("litert",), precisions=(row.precision,), parity_images=IMAGES)
    proof = ProofImages(images, f"{IMAGES} {SAMPLE_NAME}", images)
    (result,) = export_model(network, model, config, out, images=proof)
    if result.path is not None:
        return path
    if result.status != "failed":
        raise SystemExit(f"{row.model} {row.precision}: {result.reason}")
    return export_unproven(network, config.spec(model, row.precision), images, out)[0]


def board_rows(counted: dict[BoardLatency, Counts]) -> tuple[list[str], list[str]]:
    """(rows of the table, the YAML block of the calibration) of one board."""
    first, llvm = next(iter(counted)), find_emulator().installed.llvm
    by = {precision: known_of(counted, precision) for precision in dict.fromkeys(row.precision for row in counted)}
    every = [one for known in by.values() for one in known]
    if len(every) < MIN_NETWORKS:
        return [], [f"{first.core}: fewer than {MIN_NETWORKS} files, no calibration"]
    lines = []
    device = load_device(first.core)
    assert isinstance(device, EmulatedDevice)
    default = device.config.conversion
    if default and not default.basis.startswith(first.board):
        for precision, known in by.items():
            guess = [estimate_of(default, k.counts).latency_ms for k in known]
            lines.append(row_of(first, precision, "the core's default, of another board", known, guess))
    left_out = dict(zip((id(one) for one in every), (left_out_ms(every, i) for i in range(len(every))), strict=True))
    for precision, known in by.items():
        lines.append(row_of(first, precision, "its own, each left out", known, [left_out[id(one)] for one in known]))
        macs = scaled([float(k.counts.macs or 0) for k in known], [k.real_ms for k in known])
        lines.append(row_of(first, precision, "executed multiply-adds, each left out", known, macs))
    basis = f"{first.board}, {first.runtime} {' and '.join(by)}, 1 thread; {len(every)} files of EfficientDet-Lite"
    return lines, yaml_of(first.core, fit(every, f"{basis} ({first.source.split(':')[0][:38]})", llvm))


def known_of(counted: dict[BoardLatency, Counts], precision: str) -> list[Known]:
    """The files of one precision."""
    return [Known(row.model, counts, row.ms) for row, counts in counted.items() if row.precision == precision]


def row_of(first: BoardLatency, precision: str, name: str, known: Sequence[Known], guess: Sequence[float]) -> str:
    """One row of the table."""
    errors = [g / k.real_ms - 1 for g, k in zip(guess, known, strict=True)]
    single = ", ".join(
        f"{k.name.removeprefix('tf_efficientdet_')} {e:+.1%}" for k, e in zip(known, errors, strict=True)
    )
    cells = [first.board, first.core, precision, name, str(len(known)), f"{fmean(map(abs, errors)):.1%}", single]
    return f"| {' | '.join(cells)} |"


def yaml_of(core: str, found: Calibration) -> list[str]:
    """The calibration as a device YAML has it."""
    values = found.model_dump(exclude={"runtime"})
    return [f"{core}:", *(f"  {name}: {round(v, 4) if isinstance(v, float) else v}" for name, v in values.items()), ""]


if __name__ == "__main__":
    main()
