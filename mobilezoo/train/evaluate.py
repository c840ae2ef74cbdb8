"""Top-1, top-5 and loss of anything that maps image batches to logits."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F

from mobilezoo.config import Record


class EvalResult(Record):
    """Scores over a split."""

    images: int
    top1: float
    """Percent."""
    top5: float
    """Percent."""
    loss: float
    """Mean cross entropy in nats."""


@torch.inference_mode()
def evaluate(
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    watch: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None] | None = None,
) -> EvalResult:
    """Top-1, top-5 and mean cross entropy over batches.

    Args:
        logits_of: x (B, C, H, W) to logits (B, K), on one device with the targets.
        batches: (x, y) with class indices y (B,).
        watch: receives x, logits and y of every batch.

    Raises:
        DataError: there is no image.
        MobilezooError: an answer is not a finite number, whose rank and loss would mean nothing.
    """
    from mobilezoo.errors import DataError, MobilezooError

    images, top1, top5, loss = 0, 0, 0, 0.0
    for x, y in batches:
        logits = logits_of(x).float()
        if not bool(torch.isfinite(logits).all()):
            raise MobilezooError(
                f"the network's answers are not finite (NaN or infinite) from image {images + 1} on: its weights are "
                "damaged, its training diverged, or its values exceed half precision: train or export it again"
            )
        ranked = logits.topk(min(5, logits.shape[1])).indices == y[:, None]
        images += len(y)
        top1 += int(ranked[:, 0].sum())
        top5 += int(ranked.any(dim=1).sum())
        loss += float(F.cross_entropy(logits, y, reduction="sum"))
        if watch is not None:
            watch(x, logits, y)
    if images == 0:
        raise DataError("the split to evaluate on holds no images")
    return EvalResult(images=images, top1=100 * top1 / images, top5=100 * top5 / images, loss=loss / images)
