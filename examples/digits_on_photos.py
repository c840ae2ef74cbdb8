"""Drawn scenes for detection and segmentation: scikit-learn's scanned digits lie on its photographs.

Real are the photographs (scikit-learn's two, or those of a folder) and the 1,797 handwritten digits (UCI, 8x8 pixels);
drawn are where the digits lie, their size and color. Boxes and masks are known exactly, for everybody, offline.
Training and validation share neither digits nor regions of photographs.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn

from mobilezoo.preprocessing import Preprocessing

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREPROCESSING = Preprocessing(mean=MEAN, std=STD, interpolation="bilinear", crop_mode="border", crop_pct=1.0)
"""A whole photograph becomes the input; what is not square gets borders."""
INK = 0.4
"""Share of black from which a pixel of a scan belongs to its digit."""


class Scene(NamedTuple):
    """One image and all that is known of it."""

    pixels: Tensor
    """[3, S, S], 0..1."""
    boxes: Tensor
    """[M, 4] left, top, right, bottom around the ink, in shares of the side."""
    classes: Tensor
    """[M] digits."""
    mask: Tensor
    """[S, S]: 0 photograph, 1 + digit ink."""


class Scenes:
    """Any number of scenes; equal seeds give equal ones."""

    def __init__(self, photos: Sequence[np.ndarray], size: int, *, train: bool, seed: int = 0) -> None:
        digits = load_digits()
        keep = slice(None, 1400) if train else slice(1400, None)
        self.scans = torch.tensor(digits.images[keep] / 16.0, dtype=torch.float32)
        self.names = torch.tensor(digits.target[keep])
        self.photos = [_side(torch.tensor(p).permute(2, 0, 1).float() / 255, train) for p in photos]
        self.size = size
        self.draw = np.random.default_rng(seed)

    def batch(self, count: int) -> tuple[Tensor, list[Scene]]:
        """Normalized images [B, 3, S, S], and their scenes."""
        scenes = [self.one() for _ in range(count)]
        return normalized(torch.stack([scene.pixels for scene in scenes])), scenes

    def one(self) -> Scene:
        draw, size = self.draw, self.size
        photo = self.photos[draw.integers(len(self.photos))]
        top, left = (int(draw.integers(n - size + 1)) for n in photo.shape[1:])
        pixels = photo[:, top : top + size, left : left + size].clone()
        mask = torch.zeros(size, size, dtype=torch.long)
        boxes: list[list[int]] = []
        classes: list[int] = []
        for _ in range(draw.integers(1, 5)):
            index, side = int(draw.integers(len(self.scans))), int(draw.integers(size // 5, size // 2))
            y, x = (int(v) for v in draw.integers(size - side + 1, size=2))
            ink = F.interpolate(self.scans[None, None, index], size=side, mode="bilinear")[0, 0] > INK
            rows, columns = ink.any(1).nonzero(), ink.any(0).nonzero()
            box = [x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1]
            if any(_cover(box, other) for other in boxes):
                continue
            color = torch.tensor(draw.random(3), dtype=torch.float32).view(3, 1, 1)
            pixels[:, y : y + side, x : x + side] += (color - pixels[:, y : y + side, x : x + side]) * ink
            mask[y : y + side, x : x + side][ink] = 1 + self.names[index]
            boxes.append(box)
            classes.append(int(self.names[index]))
        return Scene(pixels, torch.tensor(boxes, dtype=torch.float32) / size, torch.tensor(classes), mask)


def normalized(pixels: Tensor) -> Tensor:
    """[B, 3, H, W] pixels 0..1 as the network takes them."""
    return (pixels - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def _cover(a: list[int], b: list[int]) -> bool:
    """Whether two boxes share a pixel."""
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def _side(photo: Tensor, train: bool) -> Tensor:
    """The left two thirds of a photograph for training, the right third for validation."""
    cut = photo.shape[2] * 2 // 3
    return photo[:, :, :cut] if train else photo[:, :, cut:]


def load_photos(folder: Path | None, size: int) -> list[np.ndarray]:
    """RGB photographs [H, W, 3] uint8: scikit-learn's two, or those of a folder that are large enough."""
    paths = [] if folder is None else sorted(folder.expanduser().rglob("*"))
    paths = [path for path in paths if path.suffix.lower() in (".jpg", ".jpeg", ".png")][:200]
    photos = [np.asarray(Image.open(p).convert("RGB")) for p in paths] if folder else load_sample_images().images
    photos = [p for p in photos if p.shape[0] >= size and p.shape[1] >= 3 * size]
    if not photos:
        where = f"of {str(folder)!r}" if folder else "of scikit-learn"
        raise SystemExit(f"no photograph {where} is at least {3 * size} wide and {size} high")
    return photos


def train(
    network: nn.Module, data: Scenes, loss_of: Callable[[Tensor, list[Scene]], Tensor], steps: int, batch_size: int = 8
) -> list[float]:
    """One AdamW step per batch of fresh scenes; returns the losses."""
    lr = 3e-3
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=lr, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=steps)
    losses = []
    network.train()
    for step in range(steps):
        loss = loss_of(*data.batch(batch_size))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0 or step == steps - 1:
            print(f"step {step:4d}  loss {np.mean(losses[-50:]):.3f}", flush=True)
    return losses
