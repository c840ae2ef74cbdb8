"""A searched network against others that are scaled to its measured latency, all trained by one recipe.

    python benchmarks/search_models.py cifar10 ~/images --work ~/models      # against MobileNetV2 and MnasNet-A1
    python benchmarks/search_models.py attention ~/images --work ~/models    # attention per stage or alike everywhere

`~/images` holds CIFAR-10 as for `search_supernet.py`, and `clothing.tar` (clothing/SPLIT/CLASS/*.jpg). The search is
`configs/search/cifar10_supernet.yaml` or `attention.yaml`. The latency to compare at is the found network's, or, where
that is longer, the one of the slowest rival at the narrowest width worth its name; a rival's width is multiplied so
that its LiteRT file takes as long on this host or a little longer, the found one's so that it takes as long or a little
less. What is finished is kept, so the command goes on where it stopped; the table is written anew after every training,
and at the end of every run with latencies taken anew: give the last one a quiet machine.
"""

import argparse
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from common import Kept, unpack_cifar, unpack_clothing

from mobilezoo.artifacts import write_text
from mobilezoo.config import find_config, load_record, read_yaml, write_yaml
from mobilezoo.errors import ExportError
from mobilezoo.models import load_model_config
from mobilezoo.search.networks import load_search_config, yaml_data
from mobilezoo.search.records import SearchConfig
from mobilezoo.search.space import Point
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.trainer import train
from mobilezoo.verbs.judge import estimate_of
from mobilezoo.verbs.searching import run_search
from mobilezoo.verbs.subject import untrained

Network = dict[str, Any]
NARROWEST = 0.35
"""The least width multiplier that MobileNetV2 was published with; much narrower it is slow for what it is worth."""
MULTIPLIERS = [round(NARROWEST + 0.05 * step, 2) for step in range(134)]
ROUNDS = 5


def rivals(task: str, config: SearchConfig, found: Point) -> Iterator[tuple[str, Network]]:
    """(name, model YAML) of what the found network is compared with."""
    if task == "cifar10":
        for name, model in (("MobileNetV2", "mobilenetv2_ca_100"), ("MnasNet-A1", "mnasnet_a1")):
            data = read_yaml(find_config("models", model))
            stages = [dict(stage) for stage in data["stages"]]
            if name == "MobileNetV2":
                stages = [{key: value for key, value in stage.items() if key != "attention"} for stage in stages]
            # 32-pixel images leave one pixel of a map after five strides; without the first two, 4×4 as our space.
            stages = [{**stage, "stride": 1} if number in (1, 2) else stage for number, stage in enumerate(stages)]
            plain = {key: value for key, value in data.items() if key not in ("aliases", "published")}
            yield name, {**plain, "resolution": 32, "stages": stages}
        return
    for attention in config.space.stages[0].attention:
        stages_of = tuple(stage.model_copy(update={"attention": attention}) for stage in found.stages)
        name = "nowhere" if attention == "none" else f"{attention} everywhere"
        yield name, yaml_data(config.space, found.model_copy(update={"stages": stages_of}))


def litert_file(data: Network, classes: int, pixels: int, folder: Path) -> Path:
    """The network's fp32 file in `folder`, made unless it is there."""
    from mobilezoo.verbs.exporting import export_network

    config = load_model_config(write_yaml(folder / "network.yaml", data))
    subject = untrained(config, pixels, classes)
    (result,) = export_network(subject, ["litert"], ["fp32"], folder, isolate=False)
    if result.path is None:
        raise ExportError(result.reason)
    return Path(result.path)


def latency_ms(file: Path) -> float:
    """Median on this host, one thread, measured now."""
    from mobilezoo_latency import profile

    return estimate_of(profile(file, "host", use_cache=False)).ms


def scaled(data: Network, target_ms: float, timed: Any, below: bool = False) -> tuple[Network, float]:
    """The narrowest multiple that takes at least `target_ms`, or the widest that does not, and its latency.

    By bisection over MULTIPLIERS.
    """
    low, high = 0, len(MULTIPLIERS) - 1
    while low < high:
        middle = (low + high) // 2
        if timed({**data, "width_multiplier": MULTIPLIERS[middle]}) < target_ms:
            low = middle + 1
        else:
            high = middle
    chosen = {**data, "width_multiplier": MULTIPLIERS[max(low - below, 0)]}
    return chosen, timed(chosen)


def top1(config: SearchConfig, data: Network, folder: Path, epochs: int, seed: int) -> float:
    """Of the last epoch from random weights."""
    model = write_yaml(folder / "network.yaml", data)
    changes = (f"model={model}", f"train.epochs={epochs}", f"train.seed={seed}", "train.device=cpu")
    recipe = load_record(TrainConfig, find_config("train", config.recipe), (*config.recipe_overrides, *changes))
    train(recipe, folder / "run", resume=True, progress=False)
    return float(json.loads((folder / "run" / "metrics.json").read_text())[-1]["val_top1"])


def table(task: str, args: argparse.Namespace, rows: dict[str, dict[str, Any]]) -> str:
    supernet = "trained before" if args.supernet else f"of {args.supernet_epochs} epochs"
    lines = [
        f"# Searched against scaled: {task}\n",
        f"Written by `benchmarks/search_models.py {task}` (torch {torch.__version__}, LiteRT on this host, one thread, "
        f"fp32). {args.trials} networks searched with a supernet {supernet}; then every network "
        f"was trained alone for {args.epochs} epochs by the same recipe. Latency: median of {ROUNDS} rounds over all "
        "of them [lowest, highest].\n",
        "| network | width multiplier | latency, ms | seeds | top-1, mean | deviation |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        scores = row["top1"]
        spread = f"{stdev(scores):.2f}" if len(scores) > 1 else ""
        top1 = f"{mean(scores):.2f}" if scores else ""
        ms = row["ms"]
        latency = f"{median(ms):.4f} [{min(ms):.4f}, {max(ms):.4f}]"
        lines.append(f"| {name} | {row['multiplier']:g} | {latency} | {len(scores)} | {top1} | {spread} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("cifar10", "attention"))
    parser.add_argument("images", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--target-ms", type=float, help="the most accurate within; none: the config's objective")
    parser.add_argument("--supernet-epochs", type=int, default=20)
    parser.add_argument("--supernet", type=Path, help="best.safetensors of a supernet trained before")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = args.out or Path(f"benchmarks/results/search_{args.task}.md")
    work = args.work / args.task
    kept = Kept(work / "cells.jsonl")

    if args.task == "cifar10":
        name, data, more = "cifar10_supernet", unpack_cifar(args.images, args.work / "cifar10-images"), ""
    else:
        name, data = "attention", unpack_clothing(args.images, args.work / "photos")
        more = f",train.resolution=64,data.batch_size=64,data.cache={args.work / 'photos-small'}"
    recipe = f"data.source=folder:{data},train.epochs={args.supernet_epochs},train.device=cpu{more}"
    overrides = [f"recipe_overrides=[{recipe}]", f"trials={args.trials}", "remeasure=false", "name=found"]
    if args.target_ms:
        overrides += ["objective.reward=mnas_hard", f"objective.target_ms={args.target_ms}"]
    overrides += [f"supernet.checkpoint={args.supernet}"] if args.supernet else []
    config = load_search_config(name, overrides)
    result = run_search(name, tuple(overrides), work / "search", True)
    assert result.best is not None
    found = result.trial(result.best).point
    assert found is not None
    pixels = found.resolution
    classes = sum(folder.is_dir() for folder in (data / "train").iterdir())

    def name_of(network: Network) -> str:
        return hashlib.sha256(json.dumps(network, sort_keys=True).encode()).hexdigest()[:12]

    def file_of(network: Network) -> Path:
        return litert_file(network, classes, pixels, work / "files" / name_of(network))

    def timed(network: Network) -> float:
        cell = "latency/" + json.dumps(network, sort_keys=True)
        return float(kept(cell, lambda: {"ms": latency_ms(file_of(network))})["ms"])

    ours = {**yaml_data(config.space, found), "width_multiplier": 1.0}
    others = dict(rivals(args.task, config, found))
    narrow_ms = [timed({**network, "width_multiplier": NARROWEST}) for network in others.values()]
    contest = {"searched": (ours, timed(ours))}
    target_ms = max(timed(ours), *narrow_ms)
    if target_ms > timed(ours):
        contest["searched, widened"] = scaled(ours, target_ms, timed, below=True)
    contest |= {rival: scaled(network, target_ms, timed) for rival, network in others.items()}
    rows: dict[str, dict[str, Any]] = {
        rival: {"multiplier": network["width_multiplier"], "ms": [ms], "top1": []}
        for rival, (network, ms) in contest.items()
    }
    for seed in range(args.seeds):
        for rival, (network, _) in contest.items():
            folder = work / "runs" / f"{name_of(network)}-{seed}"
            cell = f"top1/{seed}/" + json.dumps(network, sort_keys=True)
            score = kept(cell, lambda n=network, f=folder, s=seed: {"top1": top1(config, n, f, args.epochs, s)})["top1"]
            rows[rival]["top1"].append(score)
            write_text(out, table(args.task, args, rows))
    files = {rival: file_of(network) for rival, (network, _) in contest.items()}
    rounds = [{rival: latency_ms(file) for rival, file in files.items()} for _ in range(ROUNDS)]
    for rival, row in rows.items():
        row["ms"] = [ms[rival] for ms in rounds]
    write_text(out, table(args.task, args, rows))


if __name__ == "__main__":
    main()
