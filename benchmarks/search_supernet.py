"""Does a supernet rank networks as their own training does? And what does a candidate's accuracy cost by each source?

    python benchmarks/search_supernet.py ~/images --work ~/supernet

`~/images` holds `cifar10-train-20k.parquet` and `cifar10-val-10k.parquet` (columns `image`, `label`; needs pyarrow).
The supernet of `configs/search/cifar10_supernet.yaml` is trained once by its recipe; random networks of the space, its
smallest and its largest are then scored by it, and each is trained alone from random weights. One process, one thread;
what is finished is kept in a .jsonl beside the table, so the command goes on where it stopped (within a training from
--work); the table is written anew after every network.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import Kept, Row, unpack_cifar
from scipy.stats import kendalltau, spearmanr

from mobilezoo.artifacts import write_text
from mobilezoo.config import find_config, load_record, write_yaml
from mobilezoo.models import create_model
from mobilezoo.search.genes import Genome
from mobilezoo.search.networks import arch_strings, load_search_config, model_config, yaml_data
from mobilezoo.search.records import SearchConfig
from mobilezoo.search.space import Space
from mobilezoo.search.supernet.accuracy import SupernetAccuracy
from mobilezoo.search.supernet.predictor import PredictedAccuracy
from mobilezoo.search.supernet.sandwich import bound
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.trainer import train

CLASSES = 10


def networks(space: Space, count: int) -> list[Genome]:
    """The smallest, the largest, and different random ones, always the same.

    Half are uniform over the space, where most networks are of middling size; the sizes of the others are drawn with
    odds that go from small to large.
    """
    rng, found = np.random.default_rng(0), [bound(space, min), bound(space, max)]
    uniform = (count - 2) // 2
    while len(found) < count:
        number = len(found) - 2
        odds = (number - uniform + 0.5) / (count - 2 - uniform)
        genome = space.genes.sample(rng) if number < uniform else leaning(space, odds, rng)
        if genome not in found:
            found.append(genome)
    return found


def word(genome: Genome) -> str:
    """A network in a word."""
    return "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in genome.values())


def leaning(space: Space, odds: float, rng: np.random.Generator) -> Genome:
    """A random network whose sizes lean to their minima (odds 0) or maxima (odds 1)."""

    def pick(choices: tuple[Any, ...]) -> Any:
        return sorted(choices)[rng.binomial(len(choices) - 1, odds)]

    return bound(space, pick, rng=rng)


def trained_alone(config: SearchConfig, genome: Genome, folder: Path, epochs: int, seed: int) -> Row:
    """Top-1 after the last epoch of the search's recipe, shortened, from random weights."""
    model = write_yaml(folder / "network.yaml", yaml_data(config.space, config.space.point(genome)))
    changes = (f"model={model}", f"train.epochs={epochs}", f"train.seed={seed}", "train.device=cpu")
    recipe = load_record(TrainConfig, find_config("train", config.recipe), (*config.recipe_overrides, *changes))
    train(recipe, folder / "run", resume=True, progress=False)
    history = json.loads((folder / "run" / "metrics.json").read_text())
    return {"top1": history[-1]["val_top1"]}


def table(rows: list[Row], config: SearchConfig, args: argparse.Namespace, further: list[str]) -> str:
    alone, shared = ([row[key] for row in rows] for key in ("alone", "shared"))
    lines = [
        "# Supernet against stand-alone training\n",
        f"Written by `benchmarks/search_supernet.py` (torch {torch.__version__}, one CPU thread). Space "
        f"`configs/search/cifar10_supernet.yaml`: {config.space.count():,} networks. CIFAR-10, 20,000 training images, "
        f"10,000 held-out ones. The supernet was trained for {args.epochs} epochs; its networks inherit weights, their "
        f"BatchNorm statistics come from {config.supernet.calibration_batches} training batches. Stand-alone: "
        f"{args.alone_epochs} epoch(s) of the same recipe from random weights, mean of {args.seeds} seed(s). Of the "
        "networks one is the smallest and one the largest; half of the others are uniform over the space, the rest "
        "lean from small to large.\n",
    ]
    if len(rows) > 4:
        lines.append(f"**Spearman {spearmanr(alone, shared).statistic:.3f}**, Kendall "
                     f"{kendalltau(alone, shared).statistic:.3f} over {len(rows)} networks; without the smallest and "
                     f"the largest network Spearman {spearmanr(alone[2:], shared[2:]).statistic:.3f}.\n")  # fmt: skip
    lines += [*further, "| network | parameters | stand-alone top-1 | supernet top-1 |", "|---|--:|--:|--:|"]
    for row in sorted(rows, key=lambda row: row["alone"]):
        name = " ".join(arch_strings(config.space.point(row["genome"])))
        lines.append(f"| `{name}` | {row['parameters']:,} | {row['alone']:.2f} | {row['shared']:.2f} |")
    return "\n".join(lines) + "\n"


def costs(kept: Kept, epochs: int) -> list[str]:
    """The cost of a candidate's accuracy by each source, in CPU seconds."""
    alone = [row["cpu_s"] for cell, row in kept.rows.items() if cell.startswith(f"alone/{epochs}/")]
    shared = [row["cpu_s"] for cell, row in kept.rows.items() if cell.startswith("shared/")][1:]  # the first one reads
    once = kept.rows["supernet"]["cpu_s"]
    lines = [
        "| source of a candidate's accuracy | once, CPU s | per candidate, CPU s |",
        "|---|--:|--:|",
        f"| proxy training | 0 | {np.mean(alone):.1f} |",
        f"| supernet | {once:.0f} | {np.mean(shared):.2f} |",
    ]
    if "predictor" not in kept.rows:
        return [*lines, ""]
    row = kept.rows["predictor"]
    return [
        *lines,
        f"| predictor of {row['networks']} networks | {once + row['cpu_s']:.0f} | {row['each_s']:.4f} |",
        f"\nThe predictor's Spearman on {row['held_out']} networks that it has not seen is **{row['spearman']:.3f}** "
        f"(of the supernet's scores; mean error {row['mean_abs_error']:.2f} points).\n",
    ]


def predicted(config: SearchConfig, work: Path) -> Row:
    """Fit the predictor on scored networks, and time a prediction."""
    judge = PredictedAccuracy(config, work, print)
    judge.check()
    points = [config.space.sample(np.random.default_rng(seed)) for seed in range(100)]
    judge.predict(points[:1])
    began = time.process_time()
    for point in points:
        judge.predict([point])
    each = (time.process_time() - began) / len(points)
    return {**json.loads((work / "supernet" / "predictor.json").read_text()), "each_s": each}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--networks", type=int, default=22)
    parser.add_argument("--epochs", type=int, default=10, help="of the supernet")
    parser.add_argument("--alone-epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1, help="of each stand-alone training")
    parser.add_argument("--samples", type=int, default=100, help="networks that the predictor learns from")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_supernet.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = unpack_cifar(args.images, args.work / "cifar10")
    overrides = f"recipe_overrides=[data.source=folder:{data},train.epochs={args.epochs},train.device=cpu]"
    config = load_search_config("cifar10_supernet", (overrides, f"supernet.predictor_samples={args.samples}"))
    kept, rows = Kept(args.out.with_suffix(".jsonl")), []
    judge = SupernetAccuracy(config, args.work, print)
    kept("supernet", lambda: {"epochs": args.epochs, "parameters": sum(p.numel() for p in judge.supernet.parameters())})
    chosen = networks(config.space, args.networks)
    for genome in chosen:
        kept(f"shared/{word(genome)}", lambda g=genome: {"top1": judge.top1(config.space.point(g))})
    for genome in chosen:
        network = create_model(model_config(config.space, config.space.point(genome), "network"), num_classes=CLASSES)
        size = sum(p.numel() for p in network.parameters())
        shared = kept.rows[f"shared/{word(genome)}"]["top1"]
        folder = args.work / "alone" / f"{args.alone_epochs}" / word(genome)
        alone = [
            kept(
                f"alone/{args.alone_epochs}/{word(genome)}/{seed}",
                lambda g=genome, f=folder, s=seed: trained_alone(config, g, f / str(s), args.alone_epochs, s),
            )["top1"]
            for seed in range(args.seeds)
        ]
        rows.append({"genome": genome, "parameters": size, "shared": shared, "alone": float(np.mean(alone))})
        write_text(args.out, table(rows, config, args, costs(kept, args.alone_epochs)))
    kept("predictor", lambda: predicted(config, args.work))
    write_text(args.out, table(rows, config, args, costs(kept, args.alone_epochs)))


if __name__ == "__main__":
    main()
