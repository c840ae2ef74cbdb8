"""Knowledge distillation from a frozen teacher (Hinton et al., arXiv:1503.02531)."""

import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.artifacts import Preprocessing
from mobilezoo.errors import MobilezooError
from mobilezoo.train.config import Distill


class Teacher(nn.Module):
    """A frozen timm network and the loss that pulls a student's logits to its own."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: Distill, num_classes: int, prep: Preprocessing) -> None:
        super().__init__()
        import timm

        self.config = config
        try:
            self.network = timm.create_model(
                config.teacher,
                pretrained=config.checkpoint is None,
                checkpoint_path=config.checkpoint or "",
                num_classes=num_classes,
            ).eval()
        except (RuntimeError, OSError) as error:
            first = str(error).strip().splitlines()[0]
            raise MobilezooError(
                f"teacher {config.teacher!r} cannot be loaded ({first}): set distill.checkpoint"
            ) from error
        self.network.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(prep.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(prep.std).view(1, 3, 1, 1))

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode whatever the student does."""
        return super().train(False)

    def forward(self, x_bchw: torch.Tensor, student_logits: torch.Tensor) -> torch.Tensor:
        """Weighted KL divergence [scalar] of the softened outputs, or cross entropy with the teacher's class."""
        config = self.config
        with torch.no_grad():
            if not config.normalised:
                x_bchw = x_bchw * self.std + self.mean
            if config.resolution and x_bchw.shape[-1] != config.resolution:
                x_bchw = F.interpolate(x_bchw, size=config.resolution, mode="bicubic", antialias=True)
            logits = self.network(x_bchw)
        if config.kind == "hard":
            return F.cross_entropy(student_logits, logits.argmax(dim=-1)) * config.weight
        target = F.log_softmax(logits / config.temperature, dim=-1)
        soft = F.log_softmax(student_logits / config.temperature, dim=-1)
        loss = F.kl_div(soft, target, reduction="batchmean", log_target=True)
        return loss * config.weight * config.temperature**2
