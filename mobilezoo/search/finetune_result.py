"""The record of a searched network that was trained in full."""

from mobilezoo.config import Record
from mobilezoo.search.records import LatencyEstimate

FINETUNE_NAME = "finetune.json"


class FinetuneResult(Record):
    """A network of a search after full training: its figures in the search, and those of its exported file."""

    schema_version: int = 1
    number: int
    """Trial of the search."""
    checkpoint: str
    file: str
    """The exported file."""
    search_top1: float | None
    top1: float | None
    """Top-1 of the weights in percent, on the recipe's validation split."""
    file_top1: float
    """Top-1 of the exported file in percent, in its own runtime."""
    search_latency: LatencyEstimate | None
    latency: dict[str, LatencyEstimate]
    """Latency of the exported file by device; empty where the search had an estimator and no device."""
