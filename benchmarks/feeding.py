"""Images per second that reach a training loop: ours against timm's loader, on a folder of JPEG photographs.

    python benchmarks/feeding.py ~/clothing --out benchmarks/results/feeding.md

The folder has ImageNet layout (train/CLASS/IMAGE). Every loader does timm's RandomResizedCrop to 224 px and a flip,
with 2 workers and batches of 128, and is drained for one pass over at most `--images` images; the loaders run in turns,
and the ratio is taken within each turn. CPU seconds are those of this process and its workers. Normalisation and mixing
are left out on all sides: they belong to the device.
"""

import argparse
import os
import random
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
import timm
import torch
from PIL import Image

from mobilezoo.artifacts import Preprocessing
from mobilezoo.data import Augment, DataConfig, open_data
from mobilezoo.data.jpeg import make_decoder, random_crop
from mobilezoo.data.loaders import train_loader
from mobilezoo.files import write_text

SIZE, BATCH, WORKERS = 224, 128, 2
PREP = Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))


def timm_batches(root: Path) -> Iterator[int]:
    """What the workers of timm's own loader deliver to its prefetcher: uint8 batches, as its training script has it."""
    dataset = timm.data.create_dataset("", root=str(root), split="train", is_training=True)
    loader = timm.data.create_loader(
        dataset,
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        use_prefetcher=True,
        device=torch.device("cpu"),
        color_jitter=0.0,
        auto_augment=None,
        interpolation="bilinear",
        num_workers=WORKERS,
        persistent_workers=False,
    )
    for images, _ in loader.loader:  # before the device's own work, as below
        yield len(images)


def our_batches(root: Path, decoder: str) -> Iterator[int]:
    augment = Augment(color_jitter=0.0, auto_augment=None, interpolation="bilinear")
    config = DataConfig(source=f"folder:{root}", decoder=decoder, batch_size=BATCH, workers=WORKERS, augment=augment)
    batches = train_loader(config, open_data(config, train=True), SIZE, PREP, torch.device("cpu"))
    for images, _ in batches.loader:  # what the workers deliver, before the device's own work
        yield len(images)


def drain(batches: Iterator[int], images: int) -> tuple[float, float]:
    """(images per second, images per CPU second) after the first batch, which pays for starting the workers."""
    next(batches)
    began, cpu, seen = time.perf_counter(), cpu_s(), 0
    for count in batches:
        seen += count
        if seen >= images:
            break
    wall = time.perf_counter() - began
    batches.close()  # type: ignore[attr-defined]  # the workers end here, and their CPU time is counted
    return seen / wall, seen / max(cpu_s() - cpu, 1e-9)


def likeness_db(root: Path, name: str, images: int = 300) -> float:
    """PSNR of a decoder's crops against PIL's, which widens its filter when it shrinks; over all images."""
    random.seed(0)
    decoder, errors = make_decoder(name), []
    for path in sorted((root / "train").rglob("*.jpg"))[:: max(1, 3000 // images)][:images]:
        crop = random_crop(decoder.size(path.read_bytes()), (0.08, 1.0), (3 / 4, 4 / 3))
        ours = np.zeros((SIZE, SIZE, 3), np.uint8)
        decoder.decode(path.read_bytes(), crop, False, False, ours)
        top, left, height, width = crop
        with Image.open(path) as image:
            part = image.convert("RGB").crop((left, top, left + width, top + height))
        theirs = np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BILINEAR), np.float32)
        errors.append(np.mean((theirs - ours) ** 2))
    return float(10 * np.log10(255**2 / np.mean(errors)))


def cpu_s() -> float:
    """CPU seconds of this process and of its children that have ended."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/feeding.md"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    loaders: dict[str, Callable[[], Iterator[int]]] = {
        "timm create_loader": lambda: timm_batches(args.root),
        "ours, decoder=pil": lambda: our_batches(args.root, "pil"),
        "ours, decoder=wheels": lambda: our_batches(args.root, "wheels"),
        "ours, decoder=region": lambda: our_batches(args.root, "region"),
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in loaders}
    for _ in range(args.repeats):
        for name, make in loaders.items():
            found[name].append(drain(make(), args.images))
    base = found["timm create_loader"]
    lines = [
        "# Feeding\n",
        f"Written by `benchmarks/feeding.py` ({args.repeats} turns, {WORKERS} workers, batches of {BATCH}, "
        f"{SIZE} px, {os.cpu_count()} cores, timm {timm.__version__}): median, and the lowest and highest turn.\n",
        "| loader | images/s | over timm | images per CPU second | over timm |\n|---|--:|---|--:|---|",
    ]
    for name, turns in found.items():
        cells = [name]
        for i in (0, 1):
            ratios = [turn[i] / peer[i] for turn, peer in zip(turns, base, strict=True)]
            cells += [f"{median(t[i] for t in turns):.0f}"]
            cells += [f"{median(ratios):.2f}× ({min(ratios):.2f}–{max(ratios):.2f})"]
        lines.append("| " + " | ".join(cells) + " |")
    likeness = ", ".join(f"{name} {likeness_db(args.root, name):.1f} dB" for name in ("wheels", "region"))
    lines.append(f"\nCrops against PIL's antialiased ones (PSNR of 300 photographs): {likeness}.")
    write_text(args.out, "\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
