"""Metrics for other programs: TensorBoard events in the run folder, and Weights & Biases where configured."""

from pathlib import Path
from types import TracebackType
from typing import Any

from mobilezoo.data.samplers import Distributed
from mobilezoo.errors import MobilezooError
from mobilezoo.train.config import TrainConfig


class Loggers:
    """The first process's writers; nothing for the others. Raises MobilezooError where wandb is wanted and absent."""

    def __init__(self, folder: Path, config: TrainConfig, distributed: Distributed) -> None:
        self._events: Any = None
        self._wandb: Any = None
        if distributed.rank:
            return
        from torch.utils.tensorboard import SummaryWriter

        project = config.train.wandb
        if project is not None:
            self._wandb = _start_wandb(project, folder, config)
        self._events = SummaryWriter(folder / "tensorboard")

    def add(self, row: dict[str, float], epoch: int) -> None:
        """Write one epoch to every logger.

        Args:
            row: metric name to value.
            epoch: finished epochs, the x axis.
        """
        if self._events is not None:
            for key, value in row.items():
                self._events.add_scalar(key, value, epoch)
        if self._wandb is not None:
            self._wandb.log(row, step=epoch)

    def __enter__(self) -> "Loggers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _tb: TracebackType | None
    ) -> None:
        if self._events is not None:
            self._events.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(kind is not None))


def _start_wandb(project: str, folder: Path, config: TrainConfig) -> Any:
    """A run named as the folder; `resume` joins the one that a killed process began."""
    try:
        import wandb  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise MobilezooError(
            f"train.wandb={project!r} needs Weights & Biases: pip install wandb, or leave it out"
        ) from None
    name = folder.resolve().name
    return wandb.init(
        project=project, name=name, id=name, resume="allow", dir=str(folder), config=config.model_dump(mode="json")
    )
