"""Images for evaluating networks: fixed training batches for BatchNorm statistics, and the held-out split."""

from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from torch.utils.data import IterableDataset

from mobilezoo.data import eval_loader, open_data, train_loader
from mobilezoo.data.loaders import Batch
from mobilezoo.errors import DataError
from mobilezoo.preprocessing import Preprocessing
from mobilezoo.resolution import Size
from mobilezoo.search.supernet.settings import SupernetSettings
from mobilezoo.train.build import pick_device
from mobilezoo.train.config import TrainConfig

KEPT_BYTES = 2**30
"""Decoded batches of one image size are cached up to this many bytes; scoring a network then reads no file."""


class Images:
    """Batches of a recipe's data at any (height, width), the same ones at every call."""

    def __init__(self, recipe: TrainConfig, settings: SupernetSettings, prep: Preprocessing) -> None:
        self.recipe, self.settings, self.prep = recipe, settings, prep
        self.device = pick_device(recipe.train.device)
        self._fit, self._held_out = open_data(recipe.data, train=True), open_data(recipe.data, train=False)
        self._kept: dict[tuple[str, Size], list[Batch]] = {}

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names of the training split."""
        return self._fit.labels

    def calibration(self, pixels: Size) -> Iterable[torch.Tensor]:
        """Returns inputs of the first `calibration_batches` of the recipe's first epoch, augmented as in training."""

        def load() -> Iterable[Batch]:
            recipe = self.recipe
            loader = train_loader(recipe.data, self._fit, pixels, self.prep, self.device, recipe.train.seed)
            return islice(loader.epoch(0), self.settings.calibration_batches)

        if ("fit", pixels) not in self._kept:
            self._kept["fit", pixels] = list(load())
        return [x for x, _ in self._kept["fit", pixels]]

    def whole(self, pixels: Size) -> Iterable[Batch]:
        """Returns batches of the validation split at `pixels` (height, width)."""
        return eval_loader(self.recipe.data, self._held_out, pixels, self.prep, self.device)

    def held_out(self, pixels: Size) -> Iterable[Batch]:
        """Returns batches of the validation split, or of `eval_images` of it, cached where they fit `KEPT_BYTES`.

        Raises:
            DataError: `eval_images` is set and the data is a stream.
        """
        kept = self._kept.get(("held out", pixels))
        if kept is not None:
            return kept
        batches, images = self._thinned(pixels) if self.settings.eval_images else self.whole(pixels), self._count()
        if images is None or images * self.prep.channels * pixels[0] * pixels[1] * 4 > KEPT_BYTES:
            return batches
        self._kept["held out", pixels] = list(batches)
        return self._kept["held out", pixels]

    def _count(self) -> int | None:
        """Returns the number of images that score a network; None for a stream."""
        if isinstance(self._held_out.dataset, IterableDataset):
            return None
        return min(self.settings.eval_images or 2**62, len(self._held_out.dataset))

    def _thinned(self, pixels: Size) -> Iterable[Batch]:
        """Returns batches of `eval_images` images, evenly spread over the validation split."""
        count = self._count()
        if count is None:
            raise DataError(
                f"{self.recipe.data.source!r} is a stream: supernet.eval_images needs a folder or hfds source"
            )
        picked = np.linspace(0, len(self._held_out.dataset) - 1, count).astype(int).tolist()
        return eval_loader(self.recipe.data, self._held_out, pixels, self.prep, self.device, images=picked)
