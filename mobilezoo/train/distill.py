"""Knowledge distillation from a frozen teacher.

Soft targets are Hinton et al.'s (arXiv:1503.02531), hard ones and the second head DeiT's (arXiv:2012.12877 §4), and
features are compared by which images of a batch resemble each other (Tung and Mori, arXiv:1907.09682 §3.1), so that
student and teacher need no common width and no extra layer.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from mobilezoo.errors import MobilezooError, first_line
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.train.config import Distill


class FeatureStudent(nn.Module):
    """A network that returns, besides its logits, the pooled features before the classifier."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x_bchw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits [B, K], features [B, D])."""
        network: Any = self.network
        features = network.forward_features(x_bchw)
        return network.forward_head(features), network.forward_head(features, pre_logits=True)


def as_student(network: nn.Module, config: Distill | None) -> nn.Module:
    """The network with the outputs that the distillation loss needs.

    Args:
        network: switched in place to return both of its heads where it has two.
        config: None leaves the network as it is; `kind=feature` wraps it in a FeatureStudent.
    """
    if config is None:
        return network
    if config.kind == "feature":
        return FeatureStudent(network)
    if hasattr(network, "set_distilled_training"):
        both: Any = network
        both.set_distilled_training(True)
    return network


class Teacher(nn.Module):
    """A frozen timm network and the loss that pulls a student's logits, second head or features to its own."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, config: Distill, num_classes: int, prep: Preprocessing) -> None:
        super().__init__()
        import timm

        self.config = config
        known = timm.get_pretrained_cfg(config.teacher) if timm.is_model(config.teacher) else None
        if config.checkpoint is None and config.kind != "feature" and known and known.num_classes != num_classes:
            raise MobilezooError(
                f"teacher {config.teacher!r} was trained on {known.num_classes} classes, the data has {num_classes}: "
                "set distill.checkpoint to one that knows them, or distill.kind=feature"
            )
        try:
            self.network = timm.create_model(
                config.teacher,
                pretrained=config.checkpoint is None,
                checkpoint_path=config.checkpoint or "",
                num_classes=num_classes,
            ).eval()
        except (RuntimeError, OSError) as error:
            raise MobilezooError(
                f"teacher {config.teacher!r} cannot be loaded ({first_line(error)}): set distill.checkpoint"
            ) from error
        self.network.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(prep.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(prep.std).view(1, -1, 1, 1))

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in eval mode whatever the student does."""
        return super().train(False)

    def forward(self, x_bchw: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
        """The weighted distillation loss, a scalar.

        Args:
            x_bchw: the student's input, normalized; denormalized and resized here where the config wants it.
            student: the student's logits (B, K), or its features (B, D) for `kind=feature`.
        """
        config = self.config
        with torch.no_grad():
            if not config.normalized:
                x_bchw = x_bchw * self.std + self.mean
            if config.resolution and x_bchw.shape[2:] != config.resolution:
                x_bchw = F.interpolate(x_bchw, size=config.resolution, mode="bicubic", antialias=True)
            if config.kind == "feature":
                network: Any = self.network
                output = network.forward_head(network.forward_features(x_bchw), pre_logits=True)
            else:
                output = self.network(x_bchw)
        if config.kind == "feature":
            return similarity_loss(student, output) * config.weight
        if config.kind == "hard":
            return F.cross_entropy(student, output.argmax(dim=-1)) * config.weight
        target = F.log_softmax(output / config.temperature, dim=-1)
        soft = F.log_softmax(student / config.temperature, dim=-1)
        loss = F.kl_div(soft, target, reduction="batchmean", log_target=True)
        return loss * config.weight * config.temperature**2


def similarity_loss(student_bd: torch.Tensor, teacher_bd: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of two batches' row-normalized similarity matrices (B, B); equations 1 to 4 of the paper.

    Args:
        student_bd: (B, D) features of the student.
        teacher_bd: (B, E) features of the teacher; E may differ from D.
    """
    with torch.autocast(student_bd.device.type, enabled=False):
        ours, theirs = (F.normalize(x.float() @ x.float().T, dim=1) for x in (student_bd, teacher_bd))
        return F.mse_loss(ours, theirs)
