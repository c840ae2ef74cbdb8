"""What detectors are trained on: which places answer for which box, and the loss there."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, sigmoid_focal_loss

NEAR = 1.5
"""Places within so many strides of a box's center answer for it (FCOS's center sampling, arXiv:1904.01355)."""


def assign(places: Tensor, stride: tuple[float, float], boxes: Tensor) -> Tensor:
    """The box that each place answers for: that of the smallest area whose center is near and that holds the place.

    Args:
        places: [N, 2] centers (x, y), shares of the image.
        stride: (x, y) distance between neighbours.
        boxes: [M, 4] left, top, right, bottom.

    Returns:
        Indices [N] of `boxes`; -1 for none.
    """
    if not len(boxes):
        return torch.full((len(places),), -1)
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = NEAR * torch.tensor(stride)
    near = ((places[:, None] - centers).abs() <= reach).all(-1)
    inside = ((places[:, None] > boxes[:, :2]) & (places[:, None] < boxes[:, 2:])).all(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(-1)
    cost = torch.where(near & inside, area, torch.inf)
    least, index = cost.min(1)
    return torch.where(least.isfinite(), index, -1)


def detection_loss(
    boxes_bn4: Tensor, logits_bnk: Tensor, assigned_bn: Tensor, truths: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Focal loss of the classes and CIoU loss of the boxes, per place that answers for a box.

    Args:
        boxes_bn4: of `Detector.raw`.
        logits_bnk: of `Detector.raw`.
        assigned_bn: of `assign`, a row per image.
        truths: boxes [M, 4] and classes [M] of each image.
    """
    wanted = torch.zeros_like(logits_bnk)
    found, true = [], []
    for row, (assigned, (boxes, classes)) in enumerate(zip(assigned_bn, truths, strict=True)):
        here = assigned >= 0
        wanted[row, here] = F.one_hot(classes[assigned[here]], logits_bnk.shape[-1]).to(wanted)
        found.append(boxes_bn4[row, here])
        true.append(boxes[assigned[here]])
    count = max(1, sum(map(len, found)))
    focal = sigmoid_focal_loss(logits_bnk, wanted, reduction="sum")
    off = complete_box_iou_loss(torch.cat(found), torch.cat(true), reduction="sum")
    return (focal + 2 * off) / count
