"""What a candidate of a search costs: CPU seconds for each source of its latency and of its accuracy.

    python benchmarks/search_costs.py --work ~/costs

Latency is asked for as a search asks (`mobilezoo.workflows.candidate_evaluator`), on random networks of
`configs/search/cifar10_supernet.yaml`: exported and measured on this host, exported and counted on the emulated
Cortex-A76 (needs `mobilezoo device setup emulator`), exported and predicted, or composed of a table of blocks, which
needs no file. Accuracy comes from the cells of `search_supernet.py`. What is finished is kept.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import Kept

from mobilezoo.files import write_text
from mobilezoo.search.networks import load_search_config, model_config
from mobilezoo.search.records import Candidate
from mobilezoo.workflows.candidate_evaluator import CandidateEvaluator
from mobilezoo.workflows.latency_blocks import block_keys
from mobilezoo_latency.estimators.table import load_table

SPACE = "cifar10_supernet"
TABLE = "table of blocks"
SEED = 1000
"""Other networks than those that table and predictor rest on."""


def prepare(args: argparse.Namespace, kept: Kept) -> dict[str, Path]:
    """The table and the predictor of this host, made once."""
    made = {"table": args.work / "table.json", "predictor": args.work / "predictor.json"}
    asked = {
        "table": ["table", SPACE, "--networks", str(args.table_networks)],
        "predictor": ["fit", SPACE, "--networks", str(args.networks)],
    }
    for name, path in made.items():
        command = [sys.executable, "-m", "mobilezoo", "latency", *asked[name], "--out", str(path), "--quiet"]
        command += ["--work", str(args.work / name)]
        kept(f"once/{name}", lambda command=command: {"code": subprocess.run(command, check=True).returncode})
    return made


def sources(made: dict[str, Path]) -> dict[str, tuple[str, ...]]:
    """How the source is told → overrides of the search's config."""
    return {
        "measured on this host": (),
        "counted on the emulated Cortex-A76": ("devices=cortex_a76",),
        "predictor": (f"estimator={made['predictor']}",),
        TABLE: (f"estimator={made['table']}",),
    }


def latencies(args: argparse.Namespace, kept: Kept) -> dict[str, list[dict[str, Any]]]:
    """Cells of every source, one per candidate; the first of each is a warm-up and not among them."""
    made = prepare(args, kept)
    found: dict[str, list[dict[str, Any]]] = {}
    known = load_table(made["table"]).blocks_ms.keys()
    for source, overrides in sources(made).items():
        config = load_search_config(SPACE, ("recipe_overrides=[data.source=digits]", *overrides))
        evaluator = CandidateEvaluator(config)
        number = -1
        while len(found.get(source, ())) < args.candidates:
            number += 1
            point = config.space.sample(np.random.default_rng(SEED + number))
            folder = args.work / "candidates" / source.replace(" ", "-") / f"{number:02d}"
            network = model_config(config.space, point, f"candidate_{number:02d}")
            candidate = Candidate(
                number=number, point=point, config=network, folder=folder, report=lambda epoch, top1: None
            )
            if source == TABLE and not known >= set(block_keys(config.space, point)):
                continue
            row = kept(f"latency/{source}/{number}", partial(asked, evaluator.measure, candidate))
            if number:
                found.setdefault(source, []).append(row)
    return found


def asked(measure: Callable[[Candidate], Any], candidate: Candidate) -> dict[str, Any]:
    (estimate,) = measure(candidate).latency.values()
    return {"ms": estimate.ms, "error_percent": estimate.error_percent}


def table(found: dict[str, list[dict[str, Any]]], kept: Kept, supernet: Kept) -> str:
    lines = [
        "# What a candidate costs\n",
        f"Written by `benchmarks/search_costs.py` (torch {torch.__version__}, one CPU thread): networks of "
        f"`configs/search/{SPACE}.yaml` at 32 pixels. Medians of CPU seconds, those of processes that were started "
        "included; `once` is paid before the first candidate. All sources but the table need an exported file.\n",
        "## Latency\n",
        "| source | once, CPU s | per candidate, CPU s | candidates |",
        "|---|--:|--:|--:|",
    ]
    for source, rows in found.items():
        once = kept.rows.get(f"once/{source.split()[0]}", {"cpu_s": 0})["cpu_s"]
        lines.append(f"| {source} | {once:.0f} | {median(row['cpu_s'] for row in rows):.2f} | {len(rows)} |")
    lines += [
        "\n## Accuracy\n",
        "| source | once, CPU s | per candidate, CPU s | candidates |",
        "|---|--:|--:|--:|",
    ]
    scored = [(cell.split("/"), row["cpu_s"]) for cell, row in supernet.rows.items() if "top1" in row]
    alone = [cpu_s / int(parts[1]) for parts, cpu_s in scored if parts[0] == "alone"]
    shared = [cpu_s for parts, cpu_s in scored if parts[0] == "shared"][1:]
    trained, learned = supernet.rows["supernet"], supernet.rows["predictor"]
    once = trained["cpu_s"]
    lines += [
        f"| trained for an epoch of 20,000 images | 0 | {median(alone):.1f} | {len(alone)} |",
        f"| supernet, {trained['epochs']} epochs | {once:.0f} | {median(shared):.2f} | {len(shared)} |",
        f"| predictor of {learned['networks']} networks of the supernet | {once + learned['cpu_s']:.0f} | "
        f"{learned['each_s']:.4f} | 100 |",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--supernet", type=Path, default=Path("benchmarks/results/search_supernet.jsonl"))
    parser.add_argument("--candidates", type=int, default=6)
    parser.add_argument("--table-networks", type=int, default=12)
    parser.add_argument("--networks", type=int, default=40, help="that the latency predictor learns from")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/search_costs.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(args.work / "cells.jsonl")
    found = latencies(args, kept)
    write_text(args.out, table(found, kept, Kept(args.supernet)))


if __name__ == "__main__":
    main()
