"""Top-1 of each core family's smallest variant against timm's `mobilenetv2_100`, trained alike on very little.

    python benchmarks/accuracy.py ~/images --work ~/accuracy --timm-script ~/pytorch-image-models/train.py

`~/images` holds `cifar10-train-20k.parquet`, `cifar10-val-10k.parquet` (columns `image`, `label`) and `clothing.tar`
(clothing/SPLIT/CLASS/*.jpg); both are unpacked below `--work`. The peer is trained by timm's own script with the same
settings. Every cell is a run of its own: what is finished is kept, what was stopped goes on where it was. One process,
one thread; a table is written after every cell. Needs pyarrow.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import timm
import torch
from common import Kept, unpack_cifar, unpack_clothing

from mobilezoo.files import write_text
from mobilezoo.train.config import TrainConfig
from mobilezoo.train.trainer import train

FAMILIES = {
    "mobilenetv2_ca_100": 32,
    "ghostnet_050": 32,
    "shvit_s1": 32,
    "cas_vit_xs": 32,
    "emo2_1m": 32,
    "mobilemamba_t2": 64,
    "mobilenext_035": 32,
    "mnasnet_small": 32,
}
"""Variant → pixels on CIFAR-10; MobileMamba takes no fewer than 64."""
PEER = "timm mobilenetv2_100"
SEEDS = (0, 1, 2)
EPOCHS, BATCH, LR, DECAY = 1, 50, 2e-3, 0.05
PHOTO_EPOCHS, PHOTO_PIXELS, PHOTO_BATCH = 3, 64, 32


def our_run(run: Path, data: Path, model: str, seed: int, pixels: int, **changes: Any) -> float:
    """Top-1 of the last epoch of the recipe that the peer gets too."""
    recipe = {
        "model": model,
        "checkpoint": changes.get("checkpoint"),
        "reset_head": "checkpoint" in changes,
        "data": {
            "source": f"folder:{data}",
            "batch_size": changes.get("batch", BATCH),
            "workers": 0,
            "augment": {"scale": [0.5, 1.0], "color_jitter": 0.0, "interpolation": "bilinear"},
        },
        "train": {
            "epochs": changes.get("epochs", EPOCHS),
            "seed": seed,
            "resolution": pixels,
            "device": "cpu",
            "channels_last": True,
            "optimizer": {"name": "adamw", "lr": LR, "weight_decay": DECAY},
            "schedule": {"warmup_epochs": 0, "min_lr": 1e-5},
        },
    }
    train(TrainConfig.parse(recipe), run, resume=True, show_progress=False)
    return float(json.loads((run / "metrics.json").read_text())[-1]["val_top1"])


def timm_run(run: Path, data: Path, seed: int, script: Path) -> float:
    """The same recipe by timm's script."""
    flags = {
        "model": PEER.split()[1], "num-classes": 10, "device": "cpu", "seed": seed, "epochs": EPOCHS, "j": 1,
        "batch-size": BATCH, "opt": "adamw", "lr": LR, "weight-decay": DECAY, "sched": "cosine", "warmup-epochs": 0,
        "min-lr": 1e-5, "smoothing": 0.1, "color-jitter": 0.0, "train-interpolation": "bilinear",
        "output": run.parent, "experiment": run.name, "log-interval": 1000,
    }  # fmt: skip
    command = [sys.executable, str(script), str(data), "--sched-on-updates", "--channels-last"]
    command += ["--input-size", "3", "32", "32", "--scale", "0.5", "1.0"]
    for flag, value in flags.items():
        command += ["-j" if flag == "j" else f"--{flag}", str(value)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with max(run.parent.glob(f"{run.name}*/summary.csv"), key=lambda p: p.stat().st_mtime).open() as handle:
        return float(list(csv.DictReader(handle))[-1]["eval_top1"])


def cells(args: argparse.Namespace) -> list[tuple[str, Any]]:
    """(name, function without arguments → top-1), the most telling ones first."""
    cifar, photos = unpack_cifar(args.images, args.work / "cifar10"), unpack_clothing(args.images, args.work / "photos")
    runs = args.work / "runs"
    found: list[tuple[str, Any]] = []
    for seed in SEEDS:
        if args.timm_script is not None:
            name = f"cifar10/{PEER}/{seed}"
            found.append((name, lambda seed=seed: timm_run(runs / f"timm-{seed}", cifar, seed, args.timm_script)))
        for model, pixels in FAMILIES.items():
            run = runs / f"{model}-{seed}"
            found.append(
                (f"cifar10/{model}/{seed}", lambda r=run, m=model, s=seed, p=pixels: our_run(r, cifar, m, s, p))
            )
    for model in FAMILIES:
        found.append((f"photos/{model}/0", lambda model=model: photo_run(runs, photos, model)))
    return found


def photo_run(runs: Path, photos: Path, model: str) -> float:
    """Fine-tuned from the weights that seed 0 learned on CIFAR-10."""
    start = str(runs / f"{model}-0" / "best.safetensors")
    run, few = runs / f"{model}-photos", {"epochs": PHOTO_EPOCHS, "batch": PHOTO_BATCH}
    return our_run(run, photos, model, 0, PHOTO_PIXELS, checkpoint=start, **few)


def write(path: Path, done: list[dict[str, Any]]) -> None:
    lines = [
        "# Accuracy\n",
        f"Written by `benchmarks/accuracy.py` (torch {torch.__version__}, timm {timm.__version__}, one CPU thread, "
        "fp32). Tiny budgets: the numbers compare trainers and networks on equal terms and say nothing about what the "
        "networks reach when trained to the end. Cells not run are left out: see `seeds`.\n",
        "## CIFAR-10\n",
        f"20,000 training and 10,000 test images, {EPOCHS} epoch from random weights, batches of {BATCH}, AdamW "
        f"(lr {LR}, decay {DECAY}, cosine per update), crops of 50 to 100%, flips, smoothing 0.1; top-1 of the last "
        "epoch in percent. The peer was trained by timm's `train.py` with the same settings.\n",
        "| network | pixels | seeds | top-1, mean | spread (lowest–highest) | deviation | CPU s per run |",
        "|---|--:|--:|--:|---|--:|--:|",
    ]
    for name, pixels in {PEER: 32, **FAMILIES}.items():
        rows = [row for row in done if row["cell"].startswith(f"cifar10/{name}/")]
        if rows:
            top1 = [row["top1"] for row in rows]
            spread = f"{stdev(top1):.2f}" if len(top1) > 1 else ""
            cpu = f"{mean(row['cpu_s'] for row in rows):.0f}"
            low, high = min(top1), max(top1)
            lines.append(
                f"| {name} | {pixels} | {len(top1)} | {mean(top1):.2f} | {low:.2f}–{high:.2f} | {spread} | {cpu} |"
            )
    photos = [row for row in done if row["cell"].startswith("photos/")]
    if not photos:
        write_text(path, "\n".join(lines) + "\n")
        return
    lines += [
        "\n## Photographs of clothes\n",
        f"The CIFAR-10 weights of seed 0 fine-tuned on 17 classes (4,076 training, 1,020 validation "
        f"photographs) for {PHOTO_EPOCHS} epochs at {PHOTO_PIXELS} px, batches of {PHOTO_BATCH}, the same recipe, "
        "new head (`reset_head`). The largest class holds a fifth of the validation images.\n",
        "| network | top-1 of the last epoch | CPU s |",
        "|---|--:|--:|",
    ]
    for row in photos:
        lines.append(f"| {row['cell'].split('/')[1]} | {row['top1']:.2f} | {row['cpu_s']:.0f} |")
    write_text(path, "\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--timm-script", type=Path, help="train.py of timm's repository; without it no peer")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/accuracy.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = Kept(args.work / "cells.jsonl")
    for name, run in cells(args):
        kept(name, lambda run=run: {"top1": run()})
        write(args.out, [row for row in kept.rows.values() if "top1" in row])


if __name__ == "__main__":
    main()
