"""Images in: named sources, splits, loaders and small float batches."""

from mobilezoo.data.config import Augment, DataConfig
from mobilezoo.data.datasets import ImageData, open_data
from mobilezoo.data.loaders import eval_loader, sample_batch, train_loader

__all__ = ["Augment", "DataConfig", "ImageData", "eval_loader", "open_data", "sample_batch", "train_loader"]
