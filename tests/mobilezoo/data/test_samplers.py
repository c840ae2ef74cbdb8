"""An epoch's order and randomness follow from (seed, epoch, position) alone."""

import random

import numpy as np
import torch

from mobilezoo.data.samplers import Distributed, EpochSampler, seeded


def keys(order: EpochSampler, epoch: int, start: int = 0) -> list[list[tuple[int, int, int]]]:
    order.epoch, order.start = epoch, start
    return [[tuple(key) for key in batch] for batch in order]


def test_two_processes_share_the_batches_of_one() -> None:
    whole = keys(EpochSampler(103, 12, (32, 64), 5, Distributed(), repeats=3), epoch=4)
    halves = [keys(EpochSampler(103, 6, (32, 64), 5, Distributed(rank, 2), repeats=3), epoch=4) for rank in (0, 1)]
    assert len(whole) == 8
    for number, batch in enumerate(whole):
        assert sorted(batch) == sorted(halves[0][number] + halves[1][number])
        assert len({size for _, _, size in batch}) == 1


def test_an_epoch_goes_on_from_any_batch_and_differs_from_the_next() -> None:
    order = EpochSampler(100, 10, (32,), 1, Distributed())
    assert keys(order, 2, start=7) == keys(order, 2)[7:]
    assert keys(order, 2) != keys(order, 3)
    assert sorted(image for batch in keys(order, 2) for image, _, _ in batch) == list(range(100))


def test_seeded_leaves_the_generators_as_they_were() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    with seeded(1):
        first = draw()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    expected = draw()
    torch.manual_seed(0), random.seed(0), np.random.seed(0)
    with seeded(1):
        assert draw() == first
    assert draw() == expected
