"""Train a segmenter on any backbone, export it, and measure the files: ink of handwritten digits on photographs.

    python examples/segment.py                                       # some minutes on 2 CPU cores
    python examples/segment.py --backbone shvit_s1 --photos ~/Pictures --out runs/segment

The data is drawn from real photographs and real digits, see `digits_on_photos.py`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from digits_on_photos import PREPROCESSING, Scene, Scenes, load_photos, train
from prove import options, prove
from sklearn.metrics import jaccard_score
from torch import Tensor

from mobilezoo.dense.networks import Segmenter
from mobilezoo.dense.reading import mask_of
from mobilezoo_export import ModelSpec

LABELS = ("photograph", *"0123456789")


def loss_of(network: Segmenter) -> Callable[[Tensor, list[Scene]], Tensor]:
    """Cross entropy of the pixels; most are background, which weighs less."""
    weight = torch.tensor([0.2] + [1.0] * 10)

    def loss(x_bchw: Tensor, scenes: list[Scene]) -> Tensor:
        logits_bkhw = network(x_bchw).permute(0, 3, 1, 2)
        return F.cross_entropy(logits_bkhw, torch.stack([scene.mask for scene in scenes]), weight)

    return loss


def mean_iou(answers: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    """Intersection over union of answers [B, H, W, K], percent: the mean of all classes, and that of all ink."""
    truth = np.stack([scene.mask.numpy() for scene in scenes]).ravel()
    found = mask_of(answers).ravel()
    every = jaccard_score(truth, found, labels=range(len(LABELS)), average="macro", zero_division=0)
    return {"mIoU": 100 * float(every), "ink IoU": 100 * float(jaccard_score(truth > 0, found > 0))}


def main(arguments: Sequence[str] | None = None) -> None:
    args = options("Train, export and measure a segmenter.", arguments, 3500, Path("runs/segment"))
    torch.manual_seed(0)
    photos = load_photos(args.photos, args.size)
    network = Segmenter(args.backbone, len(LABELS))
    train(network, Scenes(photos, args.size, train=True), loss_of(network), args.steps)
    spec = ModelSpec(
        model=f"segment_{args.backbone}",
        resolution=(args.size, args.size),
        preprocessing=PREPROCESSING,
        labels=LABELS,
        task="segment",
    )
    prove(network, spec, Scenes(photos, args.size, train=False, seed=1), mean_iou, args.out)


if __name__ == "__main__":
    main()
