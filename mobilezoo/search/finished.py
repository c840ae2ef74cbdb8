"""The record of a searched network that was trained in full."""

from mobilezoo.config import Record
from mobilezoo.search.records import LatencyEstimate

FINISHED_NAME = "finetune.json"


class Finished(Record):
    """A searched network, finished: what the search said of it, and what came out."""

    schema_version: int = 1
    number: int
    """Trial of the search."""
    checkpoint: str
    file: str
    """The exported file."""
    search_top1: float | None
    top1: float | None
    """Of the weights, in percent, on the recipe's validation split."""
    file_top1: float
    """Of the exported file in its own runtime."""
    search_latency: LatencyEstimate | None
    latency: dict[str, LatencyEstimate]
    """Of the exported file, by device; empty where the search had an estimator and no device."""
