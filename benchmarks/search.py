"""Compare the search engines on NAS-Bench-201, where every network's accuracy and phone latency is known.

    python benchmarks/search.py nasbench201_phones.csv.gz --seeds 30

Each finished search is a line of a file, so the command goes on where it stopped.

The table (15,625 cells; accuracies of NATS-Bench, Pixel 3 latencies of HW-NAS-Bench) answers each trial at once, so
only the engines' choices differ. Reported after 50, 100, 200 and 500 trials, mean and 95% confidence interval over
seeds: the reward regret (best reward of the whole table less the best found) at three targets, and the hypervolume
regret (share of the exact front's hypervolume that is still missing).
"""

import argparse
import csv
import gzip
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from mobilezoo.files import write_text
from mobilezoo.search.config import SearchConfig
from mobilezoo.search.engines import engines_for, make_sampler
from mobilezoo.search.engines.base import GenomeSampler, Seen, trial_rng
from mobilezoo.search.genes import Gene, GeneSpace, Genome
from mobilezoo.search.objective import hypervolume

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
GENES = GeneSpace([Gene(name=f"edge{i}", choices=OPERATIONS) for i in range(6)])
BUDGETS = (50, 100, 200, 500)
ENGINES = ("random", "evolution", "tpe", "nsga2", "ppo", "bayesian")
QUANTILES = (0.25, 0.5, 0.75)
"""Targets T: these quantiles of the latencies on the exact front."""
DATASETS = {"cifar100": "c100_test_acc200", "imagenet16": "in16_120_test_acc200"}


@dataclass(frozen=True)
class Table:
    """Accuracy in percent and latency in ms of every cell, in the order of `GENES.enumerate()`."""

    index: dict[tuple[Any, ...], int]
    top1: np.ndarray
    latency_ms: np.ndarray

    def look_up(self, genome: Genome) -> tuple[float, float]:
        i = self.index[GENES.key(genome)]
        return float(self.top1[i]), float(self.latency_ms[i])


def read_table(path: Path, dataset: str) -> Table:
    index: dict[tuple[Any, ...], int] = {}
    top1: list[float] = []
    latency: list[float] = []
    with gzip.open(path, "rt", newline="") as handle:
        for row in csv.DictReader(handle):
            nodes = row["arch_str"].split("+")
            operations = [edge.split("~")[0] for node in nodes for edge in node.strip("|").split("|")]
            index[GENES.key({f"edge{i}": op for i, op in enumerate(operations)})] = len(top1)
            top1.append(float(row[DATASETS[dataset]]))
            latency.append(float(row["pixel3_ms"]))
    assert len(index) == GENES.count() == 15625
    return Table(index, np.array(top1), np.array(latency))


def make_config(engine: str, goal: str, target_ms: float, seed: int) -> SearchConfig:
    stages = [{"stride": 2, "width": [8], "depth": [1], "expansion": [1]}]  # the engines get GENES, not this space
    return SearchConfig.parse(
        {
            "space": {"resolution": [32], "stages": stages},
            "objective": {"target_ms": target_ms, "reward": "mnas_hard"},
            "engine": engine,
            "goal": goal,
            "seed": seed,
            "recipe": "none",
        }
    )


def run(config: SearchConfig, table: Table, trials: int) -> list[Seen]:
    """One search; Optuna's own samplers run in an in-memory study, ours directly (they propose the same either way)."""
    sampler = make_sampler(config.engine, config.engine_settings, GENES)
    seen: list[Seen] = []

    def judge(number: int, genome: Genome) -> Seen:
        top1, ms = table.look_up(genome)
        seen.append(Seen(number, genome, config.objective(top1, ms), top1, ms, (top1, ms)))
        return seen[-1]

    if isinstance(sampler, GenomeSampler):
        for number in range(trials):
            judge(number, sampler.fresh(seen, trial_rng(config.seed, number)))
        return seen

    def objective(trial: optuna.Trial) -> float | tuple[float, float]:
        result = judge(trial.number, {g.name: trial.suggest_categorical(g.name, g.choices) for g in GENES.genes})
        assert result.reward is not None
        assert result.top1 is not None
        assert result.latency_ms is not None
        return (result.top1, result.latency_ms) if config.goal == "front" else result.reward

    directions = ["maximize", "minimize"] if config.goal == "front" else ["maximize"]
    optuna.create_study(sampler=sampler, directions=directions).optimize(objective, n_trials=trials)
    return seen


def reward_regret(config: SearchConfig, table: Table) -> Callable[[list[Seen]], float]:
    best = float(config.objective.rewards(table.top1, table.latency_ms).max())
    return lambda seen: best - max(trial.reward or 0.0 for trial in seen)


def hypervolume_regret(table: Table) -> Callable[[list[Seen]], float]:
    worst = (float(table.top1.min()), float(table.latency_ms.max()))
    exact = hypervolume(table.top1.tolist(), table.latency_ms.tolist(), worst)

    def regret(seen: list[Seen]) -> float:
        return 1 - hypervolume([t.top1 or 0.0 for t in seen], [t.latency_ms or 0.0 for t in seen], worst) / exact

    return regret


def front_targets(table: Table) -> list[float]:
    from mobilezoo.search.objective import pareto_front

    front = pareto_front(table.top1.tolist(), table.latency_ms.tolist())
    return [float(q) for q in np.quantile(table.latency_ms[front], QUANTILES)]


def summarise(rows: list[dict[str, Any]]) -> list[str]:
    """Mean and half-width of its 95% interval per budget; in brackets the seeds where fewer searches were so long."""
    shown = []
    for index in range(len(BUDGETS)):
        values = np.array([row["regret"][index] for row in rows if len(row["regret"]) > index])
        half = 1.96 * values.std(ddof=1) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        fewer = f" ({len(values)})" if len(values) < len(rows) else ""
        shown.append(f"{values.mean():.4f} ± {half:.4f}{fewer}" if len(values) else "")
    return shown


Cell = tuple[str, str, float, str, int]
"""Dataset, goal, target in ms, engine, seed."""


def read_cells(path: Path) -> dict[Cell, dict[str, Any]]:
    """Finished searches of earlier calls."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return {(r["dataset"], r["goal"], r["target_ms"], r["engine"], r["seed"]): r for r in rows}


def run_cells(table: Table, dataset: str, engines: list[str], seed: int, trials: int, path: Path) -> None:
    """Every search of a seed that `path` does not hold yet at this length, each appended as one line."""
    done, budgets = read_cells(path), [budget for budget in BUDGETS if budget <= trials]
    targets = [round(target, 4) for target in front_targets(table)]
    goals = [("reward", t) for t in targets] + [("front", targets[1])]
    for goal, target in goals:
        for engine in engines:
            cell = (dataset, goal, target, engine, seed)
            finished = cell in done and len(done[cell]["regret"]) >= len(budgets)
            if finished or (goal == "front" and engine not in engines_for("front")):
                continue
            config = make_config(engine, goal, target, seed)
            measure = hypervolume_regret(table) if goal == "front" else reward_regret(config, table)
            began = time.process_time()
            seen = run(config, table, trials)
            row = {"dataset": dataset, "goal": goal, "target_ms": target, "engine": engine, "seed": seed}
            row |= {"seconds": round(time.process_time() - began, 2)}
            row |= {"regret": [round(measure(seen[:budget]), 6) for budget in budgets]}
            with path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")


def aims(cells: dict[Cell, dict[str, Any]]) -> list[str]:
    """The default engine after 100 and 200 trials beside what it should reach, by mean regret."""
    lines = [
        "| dataset, goal, target | bayesian 100 | random 500 | reached | bayesian 200 | best Optuna 200 | reached |"
    ]
    lines += ["|---|--:|--:|---|--:|--:|---|"]
    for task in sorted({cell[:3] for cell in cells}):
        mean = {
            (engine, budget): float(np.mean(found))
            for engine in ENGINES
            for index, budget in enumerate(BUDGETS)
            if (found := [r["regret"][index] for c, r in cells.items() if c[:4] == (*task, engine)
                          and len(r["regret"]) > index])
        }  # fmt: skip
        wanted = [("bayesian", 100), ("random", 500), ("bayesian", 200), ("tpe", 200), ("nsga2", 200)]
        if all(key in mean for key in wanted):
            bayesian, far, later, *optuna_best = (mean[key] for key in wanted)
            best = min(optuna_best)
            lines.append(
                f"| {task[0]}, {task[1]}, {task[2]:.2f} ms | {bayesian:.4f} | {far:.4f} "
                f"| {'yes' if bayesian <= far else 'no'} | {later:.4f} | {best:.4f} "
                f"| {'yes' if later < best else 'no'} |"
            )
    return lines


def markdown(cells: dict[Cell, dict[str, Any]]) -> str:
    """One table per dataset and goal, mean and 95% interval over seeds."""
    lines = [
        "# Search engines on NAS-Bench-201\n",
        "Written by `benchmarks/search.py`, whose docstring says what is compared. Regret after so many trials, mean ± "
        "half of the 95% interval over seeds; lower is better; in brackets the number of seeds where it is smaller. "
        "`reward`: best reward of the whole table less the best found (accuracy counts as 0..1). `front`: share of the "
        "exact front's hypervolume that is missing.",
        "\n## What the default engine should reach\n",
        "With 100 trials what random search has after 500, and with 200 less regret than TPE and NSGA-II of Optuna.\n",
        *aims(cells),
    ]
    for dataset, goal, target in sorted({cell[:3] for cell in cells}):
        head = " | ".join(f"{budget} trials" for budget in BUDGETS)
        lines += [f"\n## {dataset}, {goal}, target {target:.2f} ms\n", f"| engine | seeds | {head} | ms per trial |"]
        lines += ["|---|--:|" + "---|" * len(BUDGETS) + "--:|"]
        for engine in ENGINES:
            rows = [row for cell, row in cells.items() if cell[:4] == (dataset, goal, target, engine)]
            if rows:
                spent = [1000 * row["seconds"] / BUDGETS[len(row["regret"]) - 1] for row in rows]
                lines.append(f"| {engine} | {len(rows)} | {' | '.join(summarise(rows))} | {np.median(spent):.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="nasbench201_phones.csv.gz")
    parser.add_argument("--datasets", nargs="+", choices=sorted(DATASETS), default=sorted(DATASETS))
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, choices=BUDGETS, default=max(BUDGETS), help="length of each search")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    parser.add_argument("--cells", type=Path, default=Path("benchmarks/results/search_tabular.jsonl"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_tabular.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    tables = {dataset: read_table(args.table, dataset) for dataset in args.datasets}
    for seed in range(args.seeds):  # outermost: whenever it stops, datasets and engines have the same seeds
        for dataset, table in tables.items():
            run_cells(table, dataset, args.engines, seed, args.trials, args.cells)
    write_text(args.out, markdown(read_cells(args.cells)))


if __name__ == "__main__":
    main()
