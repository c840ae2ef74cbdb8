"""Factory of a search's accuracy evaluator: supernet or learned predictor."""

from pathlib import Path

from mobilezoo.search.config import SearchConfig
from mobilezoo.search.supernet.accuracy import OnMessage, SupernetAccuracy
from mobilezoo.search.supernet.predictor import PredictedAccuracy


def create_accuracy(config: SearchConfig, folder: Path, on_message: OnMessage) -> SupernetAccuracy | None:
    """Creates the evaluator that `config.accuracy` names; None for the proxy training.

    Args:
        config: the search.
        folder: its run folder; the supernet is trained in `folder/supernet`.
        on_message: called with a line for each step of the supernet's training.

    Raises:
        ConfigError: the recipe and the space contradict each other.
        CheckpointError: the config's supernet weights are of another space.
    """
    if config.accuracy == "proxy":
        return None
    kind = PredictedAccuracy if config.accuracy == "predictor" else SupernetAccuracy
    accuracy = kind(config, folder, on_message)
    accuracy.check()
    return accuracy
