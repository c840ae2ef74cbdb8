"""How `mobilezoo check` judges: false alarms on equal files, and planted regressions of 5% that it finds.

    python benchmarks/check.py --work ~/check

Equal files differ in bytes behind the model alone; the times of each pair are taken as `check` takes them, and every
tenth pair goes through all of its measures. A planted one has 5% more bytes or work, a block more, an operator that
XNNPACK leaves out, outputs that are 5% off, or 5 points less of top-1 on scikit-learn's digits. Finished runs stay in
--work; the table is written after each. Cycles of an emulated core are left out: they are the same in every run.
"""

import argparse
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import torch
from common import Kept, Row
from torch import nn

from mobilezoo.artifacts import Preprocessing, record_path
from mobilezoo.check_report import CheckLimits
from mobilezoo.data import DataConfig
from mobilezoo.data.loaders import eval_loader
from mobilezoo.data.sources import open_data
from mobilezoo.files import write_text
from mobilezoo.workflows.check_baseline import CheckOptions, check, timed
from mobilezoo_export import ExportConfig, ModelSpec, ProofImages, export_model

RESULTS = Path(__file__).parent / "results" / "check.md"
SIDE, CHANNELS, BLOCKS = 64, 24, 20
DATA = "digits"
LIMITS = CheckLimits()
MEASURES = ("size", "operators", "partitions", "parity", "top1", "latency")
UNTIMED = CheckOptions(data=DATA, latency=False)
TENTH = 10


class Chain(nn.Module):
    """Equal blocks, so that one more of 20 is 5% more work, and a head of ten classes."""

    def __init__(self, blocks: int = BLOCKS, cut: bool = False) -> None:
        super().__init__()
        self.cut = cut
        self.stem = nn.Conv2d(3, CHANNELS, 3, 2, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(blocks))
        self.head = nn.Linear(CHANNELS * 16, 10)
        for index, module in enumerate((self.stem, *self.blocks)):
            generator = torch.Generator().manual_seed(index)
            module.weight.data = torch.randn(module.weight.shape, generator=generator)
            module.weight.data *= (2 / module.weight[0].numel()) ** 0.5
            module.bias.data.zero_()
        self.eval()

    def forward(self, x_bchw: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.features(x_bchw))
        return logits

    def features(self, x_bchw: torch.Tensor) -> torch.Tensor:
        """What the head reads, (B, features)."""
        x_bchw = self.stem(x_bchw).relu()
        for block in self.blocks:
            x_bchw = (x_bchw + block(x_bchw)).relu()
        if self.cut:  # XNNPACK takes no cumulative sum
            x_bchw = x_bchw + 1e-9 * x_bchw.cumsum(3)
        return nn.functional.avg_pool2d(x_bchw, 8).flatten(1)


class Bench:
    """The baseline, and the files that are compared with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        prep = Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
        self.spec = ModelSpec(model="chain", resolution=(SIDE, SIDE), preprocessing=prep, labels=tuple("0123456789"))
        data = DataConfig(source=DATA, workers=0)
        split = open_data(data, train=False)
        loader = eval_loader(data, split, SIDE, self.spec.preprocessing, torch.device("cpu"))
        parts = [(x_bchw, y_b) for x_bchw, y_b in loader]
        self.images, self.truth = (torch.cat(column) for column in zip(*parts, strict=True))
        self.network = Chain()
        self.network.head.load_state_dict(self._fitted())
        self.old = self.exported(self.network, "old")

    def _fitted(self) -> dict[str, torch.Tensor]:
        """Weights of a head that reads the digits."""
        torch.manual_seed(0)
        with torch.no_grad():
            x_bf = self.network.features(self.images)
        head = nn.Linear(x_bf.shape[1], 10)
        optimizer = torch.optim.Adam(head.parameters(), 0.01)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(x_bf), self.truth).backward()
            optimizer.step()
        return head.state_dict()

    def exported(self, network: nn.Module, name: str) -> Path:
        """The network's .tflite file, in a folder of this name; made once."""
        path = self.folder / name / "chain.fp32.tflite"
        if not path.exists():
            config = ExportConfig(targets=("litert",), precisions=("fp32",))
            images = ProofImages(self.images[:16].numpy(), DATA)
            (made,) = export_model(network, self.spec, config, path.parent, images=images, isolate=False)
            assert made.artifact is not None, made.reason
        return path

    def equal(self, number: int, share: float = 0.0) -> Path:
        """A copy with other bytes behind the model, a share more of them, and no record."""
        whole = self.old.read_bytes()
        path = self.folder / f"equal{number}.tflite"
        path.write_bytes(whole + number.to_bytes(8, "little") + bytes(int(len(whole) * share)))
        return path

    def planted(self, what: str) -> Path:
        """A file with one regression."""
        if what == "size":
            return self.equal(0, share=0.05)
        network = Chain(BLOCKS + (what in ("operators", "latency")), cut=what == "partitions")
        own = self.network.state_dict()
        network.load_state_dict(own, strict=False)
        with torch.no_grad():
            if what == "parity":
                network.head.weight *= 1.05
            if what == "top1":
                network.head.bias[3] += self._misled()
        return self.exported(network, what)

    def _misled(self) -> float:
        """By how much one class's score must rise to lose 5 points of top-1."""
        with torch.no_grad():
            logits = self.network(self.images)
        rise, right = torch.zeros(10), (logits.argmax(1) == self.truth).float().mean()
        while ((logits + rise).argmax(1) == self.truth).float().mean() > right - 0.05:
            rise[3] += 0.02
        return float(rise[3])


def judged(bench: Bench, file: Path, options: CheckOptions) -> Row:
    """Which measures of the check failed."""
    (found,) = check(record_path(bench.old), [file], options).files
    return {"failed": [one.name for one in found.compared if one.status == "failed"], **busy()}


def timed_only(bench: Bench, file: Path) -> Row:
    """Whether the latency of a pair is beyond the limit, as `check` judges it."""
    ratios = timed(bench.old, file, LIMITS.max_latency)
    middle = median(ratios)
    failed = ["latency"] if middle > LIMITS.max_latency else []
    return {"failed": failed, "ratio": round(middle, 4), "sessions": len(ratios), **busy()}


def busy() -> Row:
    """Processes that wanted a core, of the last minute."""
    return {"load": round(os.getloadavg()[0], 2)}


def table(rows: dict[str, Row]) -> str:
    """Markdown: false alarms, and what was found."""
    equal = [row for cell, row in rows.items() if cell.startswith("equal/")]
    alarms = sum(bool(row["failed"]) for row in equal)
    ratios = sorted(row["ratio"] for row in equal if "ratio" in row)
    loads = sorted(row["load"] for row in rows.values() if "load" in row)
    lines = [
        "# How `mobilezoo check` judges",
        "",
        "`python benchmarks/check.py`: a chain of 20 equal convolutions in LiteRT, compared with copies of itself and",
        f"with files of a planted regression, on {os.cpu_count()} cores that {loads[0]:g} to {loads[-1]:g} processes",
        "wanted. Beyond a limit: runs in which any measure of equal files, or the planted one, was.",
        "",
        "| files | runs | beyond a limit | ratio of CPU time (limit 1.03) |",
        "|---|--:|--:|---|",
        f"| equal | {len(equal)} | {alarms} | {spread(ratios)} |",
    ]
    for what in MEASURES:
        found = [row for cell, row in rows.items() if cell.startswith(f"{what}/")]
        hits = sum(what in row["failed"] for row in found)
        times = sorted(row["ratio"] for row in found if "ratio" in row)
        if found:
            lines.append(f"| {PLANTED[what]} | {len(found)} | {hits} | {spread(times)} |")
    return "\n".join(lines) + "\n"


PLANTED = {
    "size": "size: 5% more bytes",
    "operators": "operators: a block more",
    "partitions": "partitions: an operator that XNNPACK leaves out",
    "parity": "parity: logits 5% larger",
    "top1": "top-1: 5 points less",
    "latency": "latency: 21 blocks instead of 20",
}


def spread(ratios: list[float]) -> str:
    """Smallest, middle and largest."""
    return f"{ratios[0]:.3f} / {ratios[len(ratios) // 2]:.3f} / {ratios[-1]:.3f}" if ratios else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for files and finished runs")
    parser.add_argument("--runs", type=int, default=100, help="pairs of equal files")
    parser.add_argument("--planted", type=int, default=20, help="runs of the planted latency; others: a tenth")
    args = parser.parse_args()
    os.environ["MOBILEZOO_EMULATOR"] = str(args.work / "none")
    torch.set_num_threads(1)
    kept, bench = Kept(args.work / "cells.jsonl"), Bench(args.work)

    def run(cell: str, make: Callable[[], Row]) -> None:
        kept(cell, make)
        finished = {name: row for name, row in kept.rows.items() if not name.endswith("/interrupted")}
        write_text(RESULTS, table(finished))

    for what in MEASURES[:-1]:
        for number in range(max(1, args.planted // TENTH)):
            run(f"{what}/{number}", partial(judged, bench, bench.planted(what), UNTIMED))
    for number in range(max(args.runs, args.planted)):
        if number < args.planted:
            run(f"latency/{number}", partial(timed_only, bench, bench.planted("latency")))
        if number >= args.runs:
            continue
        file = bench.equal(number)
        if number % TENTH:
            run(f"equal/{number}", partial(timed_only, bench, file))
        else:
            run(f"equal/{number}", partial(judged, bench, file, CheckOptions(data=DATA)))
        file.unlink()


if __name__ == "__main__":
    main()
