"""Images per second of forward, backward and update: our step against the one of timm's `train.py`.

    python benchmarks/train.py --timm-script ~/pytorch-image-models/train.py --model shvit_s1 --precision fp32

Both sides train the same network (zoo names are in timm's registry) on the same random batch with AdamW, label
smoothing and an averaged copy of the weights, in one process on one thread, taking turns. timm's side is its script's
own `train_one_epoch`, as the script runs by default and with --channels-last; ours is `train_step` with the trainer's
defaults. Cells are kept in a .jsonl beside the table, which is written anew from all of them after each call.
"""

import argparse
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch

import mobilezoo  # noqa: F401  (its models join timm's registry)
from mobilezoo.config import config_names
from mobilezoo.files import write_text
from mobilezoo.models import load_model_config
from mobilezoo.train import build, step, trainer
from mobilezoo.train.config import TrainConfig

CLASSES = 10
Step = Callable[[], None]


def timm_step(script: Path, model: str, x: torch.Tensor, y: torch.Tensor, amp: bool, channels_last: bool) -> Step:
    """One batch through the script's own loop; task, optimizer and average are built as its `main` does."""
    from timm.loss import LabelSmoothingCrossEntropy
    from timm.optim import create_optimizer_v2, optimizer_kwargs
    from timm.task import ClassificationTask

    spec = importlib.util.spec_from_file_location("timm_train_script", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    flags = ["train.py", "--model", model, "--opt", "adamw", "--model-ema", "--device", "cpu", "--lr", "1e-3"]
    sys.argv = flags + (["--channels-last"] if channels_last else [])
    args, _ = module._parse_args()
    args.prefetcher, args.distributed, args.rank = True, False, 0
    torch.manual_seed(0)
    network = timm.create_model(model, num_classes=CLASSES).train()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    task = ClassificationTask(model=network, criterion=LabelSmoothingCrossEntropy(0.1), device=torch.device("cpu"))
    optimizer = create_optimizer_v2(task.get_trainable_module(), **optimizer_kwargs(cfg=args))
    task.setup_ema(decay=args.model_ema_decay, use_warmup=False)
    cast = partial(torch.autocast, device_type="cpu", dtype=torch.bfloat16) if amp else nullcontext

    def run() -> None:
        module.train_one_epoch(
            0, network, [(x, y)], optimizer, args, task=task, device=torch.device("cpu"), amp_autocast=cast
        )

    return run


def our_step(model: str, x: torch.Tensor, y: torch.Tensor, amp: bool) -> Step:
    """One batch through `train_step`, the trainer's defaults."""
    zoo = model in config_names("models")
    if not zoo:  # a network of timm's own: the step is what is compared
        build.build_network = lambda *_: timm.create_model(model, num_classes=CLASSES)  # type: ignore[assignment]
    settings: dict[str, Any] = {
        "epochs": 1,
        "device": "cpu",
        "resolution": x.shape[-1],
        "schedule": {"warmup_epochs": 0},
    }
    config = TrainConfig.parse(
        {
            "model": model if zoo else "mnasnet_a1",
            "data": {"source": "digits", "workers": 0, "batch_size": len(x)},
            "train": {**settings, "amp": "bf16" if amp else "none", "ema": {"decay": 0.9998, "warmup": False}},
        }
    )
    state = trainer.assemble(config)
    state.network.train()
    updates = iter(range(1 << 30))

    def run() -> None:
        step.train_step(state, config, [(x, y)], next(updates), print)

    return run


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Images per second of every turn, by side."""
    torch.manual_seed(0)
    pixels = load_model_config(args.model).resolution[0] if args.model in config_names("models") else 224
    x, y = torch.randn(args.batch, 3, pixels, pixels), torch.randint(0, CLASSES, (args.batch,))
    amp = args.precision == "bf16"
    sides = {
        "timm": timm_step(args.timm_script, args.model, x, y, amp, channels_last=False),
        "timm --channels-last": timm_step(args.timm_script, args.model, x, y, amp, channels_last=True),
        "ours": our_step(args.model, x, y, amp),
    }
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(args.repeats + 1):
        for name, run in sides.items():
            began = time.perf_counter()
            run()
            if turn:  # the first allocates
                found[name].append(args.batch / (time.perf_counter() - began))
    return {"model": args.model, "precision": args.precision, "pixels": pixels, "batch": args.batch, "turns": found}


def ratio(cell: dict[str, Any], peer: str) -> str:
    ratios = [ours / theirs for ours, theirs in zip(cell["turns"]["ours"], cell["turns"][peer], strict=True)]
    return f"{median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"


def table(cells: list[dict[str, Any]]) -> str:
    lines = [
        "# Training step\n",
        f"Written by `benchmarks/train.py` (torch {torch.__version__}, timm {timm.__version__}, one thread of "
        f"{os.cpu_count()} cores): images per second of forward, backward, AdamW and the weights' average, median of "
        'the turns; ratios within a turn, with the lowest and highest. "timm" is its training script as it runs by '
        "default (NCHW), then with its flag --channels-last; ours are the trainer's defaults (NHWC, fused AdamW).\n",
        "| network | precision | px | batch | timm | timm with flag | ours | over timm | over timm with flag |",
        "|---|---|--:|--:|--:|--:|--:|---|---|",
    ]
    for cell in sorted(cells, key=lambda c: (c["precision"], c["model"])):
        rates = " | ".join(f"{median(cell['turns'][side]):.1f}" for side in ("timm", "timm --channels-last", "ours"))
        head = f"| {cell['model']} | {cell['precision']} | {cell['pixels']} | {cell['batch']} | {rates} | "
        lines.append(head + f"{ratio(cell, 'timm')} | {ratio(cell, 'timm --channels-last')} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timm-script", type=Path, required=True, help="train.py of timm's repository")
    parser.add_argument("--model", required=True)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/train.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    kept = args.out.with_suffix(".jsonl")
    cells = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    cells = [c for c in cells if (c["model"], c["precision"]) != (args.model, args.precision)]
    cells.append(measure(args))
    write_text(kept, "".join(json.dumps(cell) + "\n" for cell in cells))
    write_text(args.out, table(cells))
    print(table(cells[-1:]))


if __name__ == "__main__":
    main()
