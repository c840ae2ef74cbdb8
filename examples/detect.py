"""Train a detector on any backbone of the zoo, export it, and measure the files: handwritten digits on photographs.

    python examples/detect.py                                       # some minutes on 2 CPU cores
    python examples/detect.py --backbone shvit_s1 --photos ~/Pictures --out runs/detect

The data is drawn from real photographs and real digits, see `digits_on_photos.py`. Needs pycocotools, for the AP.
"""

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits_on_photos import PREPROCESSING, Scene, Scenes, load_photos, train
from prove import options, prove
from torch import Tensor

from mobilezoo.artifacts import BoxThresholds
from mobilezoo.dense.losses import assign, detection_loss
from mobilezoo.dense.networks import Detector
from mobilezoo.dense.reading import boxes_of
from mobilezoo_export import ModelSpec

LABELS = tuple("0123456789")
LOW = BoxThresholds(score=0.02)
"""For the AP, which weighs boxes by their probability."""


def loss_of(network: Detector) -> Callable[[Tensor, list[Scene]], Tensor]:
    """The loss of a batch, for `train`."""
    stride = network.stride

    def loss(x_bchw: Tensor, scenes: list[Scene]) -> Tensor:
        boxes, logits = network.raw(x_bchw)
        truths = [(scene.boxes, scene.classes) for scene in scenes]
        assigned = torch.stack([assign(network.places, stride, true) for true, _ in truths])
        return detection_loss(boxes, logits, assigned, truths)

    return loss


def average_precision(answers: np.ndarray, scenes: list[Scene]) -> dict[str, float]:
    """AP50, and COCO's AP over overlaps of 0.5 to 0.95, of the boxes in answers [B, N, 4 + K]; percent."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truths: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for i, (answer, scene) in enumerate(zip(answers, scenes, strict=True)):
        side = scene.pixels.shape[-1]
        for box, digit in zip((scene.boxes * side).tolist(), scene.classes.tolist(), strict=True):
            truths.append(_annotation(i, digit, box) | {"id": len(truths) + 1, "iscrowd": 0})
        for one in boxes_of(answer, LOW):
            found.append(_annotation(i, one.index, [v * side for v in one.sides]) | {"score": one.probability})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        images, categories = [{"id": i} for i in range(len(scenes))], [{"id": i} for i in range(len(LABELS))]
        truth.dataset = {"images": images, "categories": categories, "annotations": truths, "info": {}}
        truth.createIndex()
        if not found:
            return {"AP50": 0.0, "AP": 0.0}
        scored = COCOeval(truth, truth.loadRes(found), "bbox")
        for step in (scored.evaluate, scored.accumulate, scored.summarize):
            step()
    return {"AP50": 100 * float(scored.stats[1]), "AP": 100 * float(scored.stats[0])}


def _annotation(image: int, digit: int, box: list[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {"image_id": image, "category_id": digit, "bbox": [left, top, width, height], "area": width * height}


def main(arguments: Sequence[str] | None = None) -> None:
    args = options("Train, export and measure a detector.", arguments, 5000, Path("runs/detect"))
    torch.manual_seed(0)
    photos = load_photos(args.photos, args.size)
    network = Detector(args.backbone, len(LABELS), args.size)
    train(network, Scenes(photos, args.size, train=True), loss_of(network), args.steps)
    spec = ModelSpec(
        model=f"detect_{args.backbone}",
        resolution=(args.size, args.size),
        preprocessing=PREPROCESSING,
        labels=LABELS,
        task="detect",
        boxes=BoxThresholds(),
    )
    prove(network, spec, Scenes(photos, args.size, train=False, seed=1), average_precision, args.out)


if __name__ == "__main__":
    main()
