"""Does a supernet rank networks as their own training does? And what does a candidate's accuracy cost by each source?

    python benchmarks/search_supernet.py ~/images --work ~/supernet

`~/images` holds `cifar10-train-20k.parquet` and `cifar10-val-10k.parquet` (columns `image`, `label`; needs pyarrow).
The supernet of `configs/search/cifar10_supernet.yaml` is trained once by its recipe; random networks of the space, its
smallest and its largest are then scored by it, and each is trained alone from random weights. One thread; what is
finished is kept in a .jsonl beside the table, so the command goes on where it stopped (within a training from --work).
Two processes can share the work: one with --only shared, one with --only alone, then once more for the table.
"""

import argparse
import json
import time
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from common import Kept, Row, unpack_cifar
from scipy.stats import kendalltau, spearmanr

from mobilezoo.config import find_config, load_record, write_yaml
from mobilezoo.files import write_text
from mobilezoo.models import create_model
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.genes import Genome
from mobilezoo.search.networks import arch_strings, load_search_config, model_config, yaml_data
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
    train(recipe, folder / "run", resume=True, show_progress=False)
    history = json.loads((folder / "run" / "metrics.json").read_text())
    return {"top1": history[-1]["val_top1"]}


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def table(config: SearchConfig, kept: Kept, chosen: list[Genome]) -> str:
    lengths = sorted({int(cell.split("/")[1]) for cell in kept.rows if cell.startswith("alone/")})
    alone = {length: top1_alone(kept, chosen, length) for length in lengths}
    alone = {length: scores for length, scores in alone.items() if len(scores) == len(chosen)}
    shared = [kept.rows[f"shared/{word(genome)}"]["top1"] for genome in chosen]
    lines = [
        "# Supernet against stand-alone training\n",
        f"Written by `benchmarks/search_supernet.py` (torch {torch.__version__}, one CPU thread). Space "
        f"`configs/search/cifar10_supernet.yaml`: {config.space.count():,} networks. CIFAR-10, 20,000 training images, "
        f"10,000 held-out ones. The supernet was trained for {kept.rows['supernet']['epochs']} epochs; its networks "
        f"inherit weights, their BatchNorm statistics are of {config.supernet.calibration_batches} training batches. "
        "Stand-alone: the same recipe from random weights, its schedule as long as the training; mean over seeds. Of "
        f"the {len(chosen)} networks one is the smallest and one the largest; half of the others are uniform over the "
        "space, the rest lean from small to large.\n",
        "| stand-alone epochs | seeds | Spearman | Kendall | Spearman without smallest and largest |",
        "|--:|--:|--:|--:|--:|",
    ]
    for length, scores in alone.items():
        means = [mean(seeds) for seeds in scores]
        lines.append(
            f"| {length} | {min(map(len, scores))} | **{spearmanr(means, shared).statistic:.3f}** "
            f"| {kendalltau(means, shared).statistic:.3f} | {spearmanr(means[2:], shared[2:]).statistic:.3f} |"
        )
    lines += costs(kept)
    columns = "".join(f" top-1 alone, {length} epochs |" for length in alone)
    lines += [f"| network | parameters | top-1 by the supernet |{columns}", "|---|--:|--:|" + "--:|" * len(alone)]
    for number in np.argsort(shared):
        point = config.space.point(chosen[number])
        size = parameters(create_model(model_config(config.space, point, "network"), num_classes=CLASSES))
        tops = "".join(f" {mean(seeds[number]):.2f} |" for seeds in alone.values())
        lines.append(f"| `{' '.join(arch_strings(point))}` | {size:,} | {shared[number]:.2f} |{tops}")
    return "\n".join(lines) + "\n"


def top1_alone(kept: Kept, chosen: list[Genome], epochs: int) -> list[list[float]]:
    """Per network the top-1 of each seed, of those networks that were trained for so long."""
    rows = [(cell, row["top1"]) for cell, row in kept.rows.items() if "top1" in row]
    scores = [[top1 for cell, top1 in rows if cell.startswith(f"alone/{epochs}/{word(genome)}/")] for genome in chosen]
    return [seeds for seeds in scores if seeds]


def costs(kept: Kept) -> list[str]:
    """The cost of a candidate's accuracy by each source, in CPU seconds."""
    split = {cell: cell.split("/") for cell, row in kept.rows.items() if "top1" in row}
    alone = [kept.rows[cell]["cpu_s"] / int(parts[1]) for cell, parts in split.items() if parts[0] == "alone"]
    shared = [kept.rows[cell]["cpu_s"] for cell, parts in split.items() if parts[0] == "shared"][1:]  # the first reads
    row, once = kept.rows["predictor"], kept.rows["supernet"]["cpu_s"]
    return [
        "\n| source of a candidate's accuracy | once, CPU s | per candidate, CPU s |",
        "|---|--:|--:|",
        f"| proxy training, an epoch | 0 | {mean(alone):.1f} |",
        f"| supernet | {once:.0f} | {mean(shared):.2f} |",
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
    parser.add_argument("--networks", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=10, help="of the supernet")
    parser.add_argument("--alone-epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=1, help="of each stand-alone training")
    parser.add_argument("--samples", type=int, default=60, help="networks that the predictor learns from")
    parser.add_argument("--only", choices=("shared", "alone"), help="one half, for two processes at a time; no table")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_supernet.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = unpack_cifar(args.images, args.work / "cifar10")
    overrides = f"recipe_overrides=[data.source=folder:{data},train.epochs={args.epochs},train.device=cpu]"
    config = load_search_config("cifar10_supernet", (overrides, f"supernet.predictor_samples={args.samples}"))
    kept = Kept(args.out.with_suffix(".jsonl"))
    judge = SupernetAccuracy(config, args.work, print)
    chosen = networks(config.space, args.networks)
    if args.only != "alone":
        kept("supernet", lambda: {"epochs": args.epochs, "parameters": parameters(judge.supernet)})
        for genome in chosen:
            kept(f"shared/{word(genome)}", lambda g=genome: {"top1": judge.top1(config.space.point(g))})
        kept("predictor", lambda: predicted(config, args.work))
    if args.only != "shared":
        for seed, genome in product(range(args.seeds), chosen):
            folder = args.work / "alone" / f"{args.alone_epochs}" / word(genome) / f"{seed}"
            make = partial(trained_alone, config, genome, folder, args.alone_epochs, seed)
            kept(f"alone/{args.alone_epochs}/{word(genome)}/{seed}", make)
    if args.only is None:
        write_text(args.out, table(config, kept, chosen))


if __name__ == "__main__":
    main()
