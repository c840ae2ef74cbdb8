"""The order of a training epoch, and the randomness of each of its images, as functions of (seed, epoch, position).

Nothing depends on how many processes load or train, or on what was drawn before: batch `k` of an epoch is the same
after a restart, and two processes together see the images that one process sees, varied in the same way.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler, get_worker_info

from mobilezoo.resolution import Size


@dataclass(frozen=True)
class Distributed:
    """This process among all that train together."""

    rank: int = 0
    world: int = 1
    local: int = 0
    """Number of this process on its own machine: which GPU it takes."""


class Key(NamedTuple):
    """One sample of a batch: index of the image, seed of its augmentation, its (height, width) in pixels."""

    image: int
    seed: int
    size: Size


class EpochSampler(Sampler[list[Key]]):
    """Batches of keys for one process; all processes together go through one shuffled order.

    With `repeats` (repeated augmentation, Hoffer et al., arXiv:1901.09335) each image comes that often in a row,
    differently varied, and an epoch keeps its length: it shows `images / repeats` images. The last images that do not
    fill a batch on every process are left out.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        sizes: tuple[Size, ...],
        seed: int,
        distributed: Distributed,
        repeats: int = 0,
    ) -> None:
        self.images, self.batch_size, self.sizes = images, batch_size, sizes
        self.seed, self.distributed, self.repeats = seed, distributed, max(1, repeats)
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.images // (self.batch_size * self.distributed.world)

    def __iter__(self) -> Iterator[list[Key]]:
        source = np.random.default_rng([self.seed, self.epoch])
        order = np.repeat(source.permutation(self.images), self.repeats)[: self.images]
        seeds = source.integers(0, 2**32, self.images)
        sizes = source.integers(0, len(self.sizes), len(self))
        whole = self.batch_size * self.distributed.world
        for number in range(self.start, len(self)):
            mine = slice(number * whole + self.distributed.rank, (number + 1) * whole, self.distributed.world)
            size = self.sizes[sizes[number]]
            yield [Key(int(i), int(s), size) for i, s in zip(order[mine], seeds[mine], strict=True)]


class KeyedImages(Dataset[tuple[Any, int]]):
    """A data set indexed by Key: the image is varied by the transform of its size, from its own seed."""

    def __init__(self, dataset: Any, transforms: dict[Size, Any]) -> None:
        self.dataset, self.transforms = dataset, transforms
        dataset.transform = None

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> tuple[Any, int]:
        with seeded(key.seed):
            image, target = self.dataset[key.image]
            return self.transforms[key.size](image), int(target)


class StreamTransform:
    """A transform for streams, which have no keys: image `n` of a loader process is varied from (seed, epoch, n)."""

    def __init__(self, transform: Any, seed: int, distributed: Distributed) -> None:
        self.transform, self.seed, self.rank = transform, seed, distributed.rank
        self.epoch, self.shown = 0, 0

    def begin(self, epoch: int) -> None:
        """Start counting an epoch; called in the process that starts the loader processes, before it does."""
        self.epoch, self.shown = epoch, 0

    def __call__(self, image: Any) -> Any:
        worker = get_worker_info()
        place = [self.seed, self.epoch, self.rank, worker.id if worker else 0, self.shown]
        self.shown += 1
        with seeded(int(np.random.SeedSequence(place).generate_state(1)[0])):
            return self.transform(image)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's CPU generators inside and restore them after; timm's transforms use all."""
    if get_worker_info() is not None:  # nothing else draws there, and putting the states back takes as long as seeding
        _seed(seed)
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    _seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


@contextmanager
def seeded_python(seed: int) -> Iterator[None]:
    """As `seeded` for Python's generator alone: five times cheaper, where nothing else is drawn from."""
    state = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(state)


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would queue a call for CUDA each time
