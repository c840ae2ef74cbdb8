"""A searched network against others that are scaled to its measured latency, all trained by one recipe.

    python benchmarks/search_models.py cifar10 ~/images --work ~/models      # against MobileNetV2 and MnasNet-A1
    python benchmarks/search_models.py attention ~/images --work ~/models    # attention per stage or alike everywhere

`~/images` holds CIFAR-10 as for `search_supernet.py`, and `clothing.tar` (clothing/SPLIT/CLASS/*.jpg). The search is
`configs/search/cifar10_supernet.yaml` or `attention.yaml`; its target is the slowest rival's latency: at the narrowest
width worth its name on CIFAR-10, at its own in the space of attention. Every rival's width is then multiplied so that
its LiteRT file takes as long on this host as the found one's, the two being measured by turns; none gets narrower than
0.35, so it may take longer. Where the best network attends nowhere, the best that attends somewhere is trained too.
What is finished is kept, so the command goes on where it stopped; the table is written anew after every training, and
at the end of every run with latencies taken anew: give the last one a quiet machine.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch
from common import Kept, unpack_cifar, unpack_clothing

from mobilezoo.cli.progress import shown
from mobilezoo.config import find_config, load_record, read_yaml, write_yaml
from mobilezoo.errors import ExportError
from mobilezoo.files import write_text
from mobilezoo.models import create_model, load_model_config
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.networks import load_search_config, yaml_data
from mobilezoo.search.records import SearchResult
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.trainer import train
from mobilezoo.workflows.candidate_evaluator import estimate_of
from mobilezoo.workflows.load_model import with_random_weights
from mobilezoo.workflows.search import search

Network = dict[str, Any]
CONFIGS = {"cifar10": "cifar10_supernet", "attention": "attention"}
NARROWEST = 0.35
"""The least width multiplier that MobileNetV2 was published with; much narrower it is slow for what it is worth."""
MULTIPLIERS = [round(NARROWEST + 0.05 * step, 2) for step in range(134)]
ROUNDS = 5


def rivals(task: str, config: SearchConfig) -> Iterator[tuple[str, Network]]:
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
    one = config.space.smallest()  # only attention is open in this space
    for attention in config.space.stages[0].attention:
        alike = tuple(stage.model_copy(update={"attention": attention}) for stage in one.stages)
        name = "nowhere" if attention == "none" else f"{attention} everywhere"
        yield name, yaml_data(config.space, one.model_copy(update={"stages": alike}))


def searched(task: str, config: SearchConfig, result: SearchResult) -> list[tuple[str, Network]]:
    """(name, model YAML) of the best network; in the space of attention also of the best that has any."""
    done = [trial for trial in result.trials if trial.reward is not None]
    points = [trial.point for trial in sorted(done, key=lambda t: t.reward or 0.0, reverse=True) if trial.point]
    if task == "cifar10":
        return [("searched", yaml_data(config.space, points[0]))]
    attends = next(point for point in points if any(stage.attention != "none" for stage in point.stages))
    chosen = points[:1] if points[0] == attends else [points[0], attends]
    where = [", ".join(stage.attention for stage in point.stages) for point in chosen]
    return [(f"searched: {w}", yaml_data(config.space, point)) for w, point in zip(where, chosen, strict=True)]


@dataclass(frozen=True)
class Bench:
    """Files, latencies and trainings of networks, each made once."""

    kept: Kept
    work: Path
    config: SearchConfig
    pixels: int
    classes: int

    def file(self, network: Network) -> Path:
        """The network's fp32 LiteRT file, made unless it is there."""
        from mobilezoo.workflows.export import export_network
        from mobilezoo_export import ExportConfig

        folder = self.work / "files" / word(network)
        model = load_model_config(write_yaml(folder / "network.yaml", network))
        loaded = with_random_weights(model, self.pixels, self.classes)
        (result,) = export_network(loaded, ExportConfig(targets=("litert",), overwrite=True), folder, isolate=False)
        if result.path is None:
            raise ExportError(result.reason)
        return Path(result.path)

    def timed(self, network: Network) -> float:
        """Latency in ms as it was measured first."""
        cell = "latency/" + json.dumps(network, sort_keys=True)
        return float(self.kept(cell, lambda: {"ms": latency_ms(self.file(network))})["ms"])

    def ratio(self, network: Network, other: Network) -> float:
        """Latency over the other's: median of `ROUNDS` rounds that measure both, so a slower hour slows both."""
        cell = f"ratio/{json.dumps(network, sort_keys=True)} over {word(other)}"

        def measured() -> dict[str, float]:
            one, two = self.file(network), self.file(other)
            return {"ratio": median(latency_ms(one) / latency_ms(two) for _ in range(ROUNDS))}

        return float(self.kept(cell, measured)["ratio"])

    def top1(self, network: Network, epochs: int, seed: int) -> float:
        """Of the last epoch from random weights, by the search's recipe."""
        cell = f"top1/{epochs}/{seed}/" + json.dumps(network, sort_keys=True)
        return float(self.kept(cell, lambda: {"top1": self._trained(network, epochs, seed)})["top1"])

    def row(self, network: Network) -> dict[str, Any]:
        """A row of the table before the network is trained."""
        model = create_model(load_model_config(self.file(network).parent / "network.yaml"), num_classes=self.classes)
        return {
            "multiplier": network["width_multiplier"],
            "parameters": sum(p.numel() for p in model.parameters()),
            "ms": [self.timed(network)],
            "top1": [],
        }

    def _trained(self, network: Network, epochs: int, seed: int) -> float:
        folder, config = self.work / "runs" / f"{word(network)}-{epochs}-{seed}", self.config
        model = write_yaml(folder / "network.yaml", network)
        changes = (f"model={model}", f"train.epochs={epochs}", f"train.seed={seed}", "train.device=cpu")
        recipe = load_record(TrainConfig, find_config("train", config.recipe), (*config.recipe_overrides, *changes))
        train(recipe, folder / "run", resume=True, show_progress=False)
        return float(json.loads((folder / "run" / "metrics.json").read_text())[-1]["val_top1"])


def word(network: Network) -> str:
    """A name for a network's folder."""
    return hashlib.sha256(json.dumps(network, sort_keys=True).encode()).hexdigest()[:12]


def latency_ms(file: Path) -> float:
    """Median on this host, one thread, measured now."""
    from mobilezoo_latency import profile

    return estimate_of(profile(file, "host", reuse="none")).ms


def scaled(data: Network, ours: Network, ratio: Callable[[Network, Network], float]) -> Network:
    """The multiple that takes as long as `ours`, or nearly so. By bisection over MULTIPLIERS."""
    if {**data, "width_multiplier": 1.0} == ours:
        return ours
    multiples = [{**data, "width_multiplier": multiplier} for multiplier in MULTIPLIERS]
    low, high = 0, len(multiples) - 1
    while low < high:
        middle = (low + high) // 2
        if ratio(multiples[middle], ours) < 1:
            low = middle + 1
        else:
            high = middle
    return min(multiples[max(low - 1, 0) : low + 1], key=lambda multiple: abs(ratio(multiple, ours) - 1))


def table(task: str, args: argparse.Namespace, config: SearchConfig, rows: dict[str, dict[str, Any]]) -> str:
    objective = config.objective
    rounds = max(len(row["ms"]) for row in rows.values())
    latency = f"median of {rounds} rounds over all of them [lowest, highest]" if rounds > 1 else "measured once so far"
    aim = f"the slowest rival at {'its narrowest' if task == 'cifar10' else 'full width'}"
    lines = [
        f"# Searched against scaled: {task}\n",
        f"Written by `benchmarks/search_models.py {task}` (torch {torch.__version__}, LiteRT on this host, one thread, "
        f"fp32). {args.trials} networks of `configs/search/{CONFIGS[task]}.yaml` were scored by a supernet; the "
        f"best one by {objective.reward} was taken (target: {aim}, {objective.target_ms:g} ms). Then every network was "
        f"trained alone for {args.epochs} epochs by the same recipe. Latency: {latency}.\n",
        "| network | width multiplier | parameters | latency, ms | seeds | top-1, mean | deviation |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in rows.items():
        scores, ms = row["top1"], row["ms"]
        spread = f"{stdev(scores):.2f}" if len(scores) > 1 else ""
        span = f"{median(ms):.4f} [{min(ms):.4f}, {max(ms):.4f}]"
        lines.append(
            f"| {name} | {row['multiplier']:g} | {row['parameters']:,} | {span} | {len(scores)} "
            f"| {mean(scores):.2f} | {spread} |"
        )
    return "\n".join(lines) + "\n"


def images_of(task: str, args: argparse.Namespace) -> tuple[Path, str]:
    """(folder of images, further changes of the recipe)."""
    if task == "cifar10":
        return unpack_cifar(args.images, args.work / "cifar10-images"), ""
    small = f",train.resolution=64,data.batch_size=64,data.cache={args.work / 'photos-small'}"
    return unpack_clothing(args.images, args.work / "photos"), small


def prepared(args: argparse.Namespace) -> tuple[Bench, list[str]]:
    """The bench, and the overrides of its search."""
    task, work = args.task, args.work / args.task
    data, more = images_of(task, args)
    recipe = f"data.source=folder:{data},train.epochs={args.supernet_epochs},train.device=cpu{more}"
    overrides = [f"recipe_overrides=[{recipe}]", f"trials={args.trials}", "remeasure=false", "name=found"]
    overrides += [f"supernet.checkpoint={args.supernet}"] if args.supernet else []
    config = load_search_config(CONFIGS[task], overrides)
    classes = sum(folder.is_dir() for folder in (data / "train").iterdir())
    return Bench(Kept(work / "cells.jsonl"), work, config, max(config.space.resolution), classes), overrides


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=CONFIGS)
    parser.add_argument("images", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--supernet-epochs", type=int, default=20)
    parser.add_argument("--supernet", type=Path, help="best.safetensors of a supernet trained before")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    out = args.out or Path(f"benchmarks/results/search_{args.task}.md")

    bench, overrides = prepared(args)
    others = dict(rivals(args.task, bench.config))
    width = NARROWEST if args.task == "cifar10" else 1.0
    target_ms = max(bench.timed({**network, "width_multiplier": width}) for network in others.values())
    overrides.append(f"objective.target_ms={target_ms:.3f}")
    config = load_search_config(CONFIGS[args.task], overrides)
    with shown() as hooks:
        result = search(CONFIGS[args.task], tuple(overrides), out=bench.work / "search", hooks=hooks)
    found, *more = searched(args.task, config, result)
    name, ours = found[0], {**found[1], "width_multiplier": 1.0}
    contest = {name: ours}
    for rival, network in (*more, *others.items()):
        contest[rival] = scaled(network, ours, bench.ratio)
    rows: dict[str, dict[str, Any]] = {}
    for seed in range(args.seeds):
        for rival, network in contest.items():
            if seed == 0:
                rows[rival] = bench.row(network)
            rows[rival]["top1"].append(bench.top1(network, args.epochs, seed))
            write_text(out, table(args.task, args, config, rows))
    files = {rival: bench.file(network) for rival, network in contest.items()}
    rounds = [{rival: latency_ms(file) for rival, file in files.items()} for _ in range(ROUNDS)]
    for rival, row in rows.items():
        row["ms"] = [times[rival] for times in rounds]
    write_text(out, table(args.task, args, config, rows))


if __name__ == "__main__":
    main()
