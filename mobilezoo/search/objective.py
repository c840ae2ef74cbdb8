"""Rewards that trade accuracy against latency, and the Pareto front."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from mobilezoo.config import Record
from mobilezoo.registry import Registry

WEIGHTS: dict[str, tuple[float, float]] = {"mnas_soft": (-0.07, -0.07), "mnas_hard": (0.0, -1.0)}
"""MnasNet's (alpha, beta): the exponent below and above the target (section 3)."""

TUNAS_BETA = -0.10
"""Slope of the absolute reward; within the range Bender et al. 2020 found to work."""


class Objective(Record):
    """What a search maximises.

    mnas_soft, mnas_hard: ACC * (LAT / T)^w, Tan et al. 2019 (arXiv:1807.11626), equation 2.
    tunas: ACC + beta * |LAT / T - 1|, Bender et al. 2020 (arXiv:2008.06120), the absolute reward.
    """

    reward: str = Field(default="mnas_soft", description="mnas_soft, mnas_hard, tunas, or your own")
    target_ms: float = Field(gt=0, description="latency T the network should have, in milliseconds")
    targets_ms: dict[str, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="other targets by device name, where a search has several devices"
    )
    alpha: float | None = Field(default=None, le=0, description="exponent at or below the target; default: the paper's")
    beta: float | None = Field(default=None, le=0, description="exponent above the target, or TuNAS's slope")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        REWARDS.known(self.reward)
        if self.reward == "tunas" and self.alpha is not None:
            raise ValueError("no 'alpha' with the tunas reward: it has one slope, 'beta'")
        return self

    def __call__(self, top1: float, latency_ms: float) -> float:
        """Reward of a network with `top1` percent accuracy and `latency_ms` > 0; accuracy counts as 0..1."""
        return float(self.rewards(np.asarray(top1, np.float64), np.asarray(latency_ms, np.float64)))

    def deciding_ms(self, latency_ms: Mapping[str, float]) -> float:
        """The latency that enters the reward: on several devices the one worst against its target, scaled to T."""
        return max(self._scaled(device, ms) for device, ms in latency_ms.items())

    def _scaled(self, device: str, ms: float) -> float:
        target = self.targets_ms.get(device, self.target_ms)
        return ms if target == self.target_ms else ms * self.target_ms / target

    def rewards(self, top1: NDArray[np.float64], latency_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rewards of many networks; both arrays of one shape."""
        return REWARDS.load(self.reward)(top1 / 100, latency_ms / self.target_ms, self)


def mnas(
    accuracy: NDArray[np.float64], ratio: NDArray[np.float64], objective: Objective, weights: tuple[float, float]
) -> NDArray[np.float64]:
    """MnasNet's reward with its default (alpha, beta), see `Objective`."""
    below = weights[0] if objective.alpha is None else objective.alpha
    above = weights[1] if objective.beta is None else objective.beta
    return accuracy * ratio ** np.where(ratio <= 1, below, above)


def tunas(accuracy: NDArray[np.float64], ratio: NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
    """TuNAS's absolute reward, see `Objective`."""
    return accuracy + (TUNAS_BETA if objective.beta is None else objective.beta) * np.abs(ratio - 1)


Reward = Callable[[NDArray[np.float64], NDArray[np.float64], Objective], NDArray[np.float64]]
REWARDS: Registry[Reward] = Registry(
    "reward",
    "rewards",
    {**{name: partial(mnas, weights=weights) for name, weights in WEIGHTS.items()}, "tunas": tunas},
    callable,
    "a function (accuracy, latency over target, Objective) → rewards, of arrays of one shape",
)
"""Accuracies (0..1) and latencies over the target → what is raised."""


def pareto_front(accuracy: Sequence[float], latency_ms: Sequence[float]) -> list[int]:
    """Indices of the networks that no other dominates, fastest first.

    One network dominates another when it is at least as accurate and as fast, and better in one. Of equal networks the
    first stays.
    """
    order = sorted(range(len(accuracy)), key=lambda i: (latency_ms[i], -accuracy[i], i))
    front: list[int] = []
    best = -np.inf
    for i in order:
        if accuracy[i] > best:
            front.append(i)
            best = accuracy[i]
    return front


def undominated(values: NDArray[np.float64]) -> list[int]:
    """Indices of the rows [networks, criteria], all to be small, that no other row dominates, by their second column.

    Of equal rows the first stays.
    """
    chosen: list[int] = []
    for i, row in enumerate(values):
        no_worse = (values <= row).all(axis=1)
        better = no_worse & ((values < row).any(axis=1) | (np.arange(len(values)) < i))
        if not better.any():
            chosen.append(i)
    return sorted(chosen, key=lambda i: (values[i, 1], i))


def hypervolume(accuracy: Sequence[float], latency_ms: Sequence[float], worst: tuple[float, float]) -> float:
    """Area dominated by the networks and bounded by `worst` = (lowest accuracy, highest latency)."""
    floor, ceiling = worst
    area, reached = 0.0, floor
    for i in pareto_front(accuracy, latency_ms):
        if latency_ms[i] < ceiling and accuracy[i] > reached:
            area += (accuracy[i] - reached) * (ceiling - latency_ms[i])
            reached = accuracy[i]
    return area
