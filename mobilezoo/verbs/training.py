"""`mobilezoo train`."""

from pathlib import Path

from mobilezoo.artifacts import Checkpoint
from mobilezoo.config import find_config, load_record
from mobilezoo.train.config import TrainConfig


def run_training(config: str, overrides: tuple[str, ...], out: Path | None, resume: bool, progress: bool) -> Checkpoint:
    """Load the recipe, train, and return the record of the best weights with its full path."""
    path = find_config("train", config)
    recipe = load_record(TrainConfig, path, overrides)
    from mobilezoo.models import load_model_config
    from mobilezoo.train.trainer import train

    model = load_model_config(recipe.model)
    folder = out or Path("runs") / (recipe.name or (path.stem if recipe.name is None else model.name))
    record = train(recipe, folder, resume=resume, progress=progress)
    return record.model_copy(update={"path": str(folder / record.path)})
