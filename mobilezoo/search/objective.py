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
    """The reward that a search maximizes.

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
        """Computes the reward of one network from its top-1 in percent and its latency (> 0)."""
        return float(self.rewards(np.asarray(top1, np.float64), np.asarray(latency_ms, np.float64)))

    def deciding_ms(self, latency_ms: Mapping[str, float]) -> float:
        """Returns the latency that enters the reward: the highest relative to its device's target, scaled to T."""
        return max(self._scaled(device, ms) for device, ms in latency_ms.items())

    def _scaled(self, device: str, ms: float) -> float:
        target = self.targets_ms.get(device, self.target_ms)
        return ms if target == self.target_ms else ms * self.target_ms / target

    def rewards(self, top1: NDArray[np.float64], latency_ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Computes the rewards of many networks.

        Args:
            top1: accuracies in percent.
            latency_ms: latencies, in an array of the same shape.

        Returns:
            Rewards, in an array of the same shape.
        """
        return REWARDS.load(self.reward)(top1 / 100, latency_ms / self.target_ms, self)


def mnas(
    accuracy: NDArray[np.float64], ratio: NDArray[np.float64], objective: Objective, weights: tuple[float, float]
) -> NDArray[np.float64]:
    """Computes MnasNet's reward, see `Objective`.

    Args:
        accuracy: 0..1, any shape.
        ratio: latency over target, the same shape.
        objective: its alpha and beta replace those of `weights` where they are set.
        weights: default (alpha, beta).
    """
    below = weights[0] if objective.alpha is None else objective.alpha
    above = weights[1] if objective.beta is None else objective.beta
    return accuracy * ratio ** np.where(ratio <= 1, below, above)


def tunas(accuracy: NDArray[np.float64], ratio: NDArray[np.float64], objective: Objective) -> NDArray[np.float64]:
    """Computes TuNAS's absolute reward, see `Objective`.

    Args:
        accuracy: 0..1, any shape.
        ratio: latency over target, the same shape.
        objective: its beta replaces `TUNAS_BETA` where it is set.
    """
    return accuracy + (TUNAS_BETA if objective.beta is None else objective.beta) * np.abs(ratio - 1)


Reward = Callable[[NDArray[np.float64], NDArray[np.float64], Objective], NDArray[np.float64]]
REWARDS: Registry[Reward] = Registry(
    "reward",
    "rewards",
    {**{name: partial(mnas, weights=weights) for name, weights in WEIGHTS.items()}, "tunas": tunas},
    callable,
    "a function (accuracy, latency over target, Objective) → rewards, of arrays of one shape",
)
"""Name → function (accuracy 0..1, latency over target, Objective) → rewards to be maximized."""


def pareto_front(accuracy: Sequence[float], latency_ms: Sequence[float]) -> list[int]:
    """Finds the networks that no other dominates: at least as accurate and as fast, and better in one.

    Args:
        accuracy: one value per network.
        latency_ms: one value per network.

    Returns:
        Their indices, fastest first; of equal networks only the first.
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
    """Finds the rows that no other row dominates.

    Args:
        values: [networks, criteria], each to be minimized.

    Returns:
        Their indices, sorted by the second column; of equal rows only the first.
    """
    chosen: list[int] = []
    for i, row in enumerate(values):
        no_worse = (values <= row).all(axis=1)
        better = no_worse & ((values < row).any(axis=1) | (np.arange(len(values)) < i))
        if not better.any():
            chosen.append(i)
    return sorted(chosen, key=lambda i: (values[i, 1], i))


def hypervolume(accuracy: Sequence[float], latency_ms: Sequence[float], worst: tuple[float, float]) -> float:
    """Computes the area that the networks dominate.

    Args:
        accuracy: one value per network.
        latency_ms: one value per network.
        worst: reference point (lowest accuracy, highest latency) that bounds the area.
    """
    floor, ceiling = worst
    area, reached = 0.0, floor
    for i in pareto_front(accuracy, latency_ms):
        if latency_ms[i] < ceiling and accuracy[i] > reached:
            area += (accuracy[i] - reached) * (ceiling - latency_ms[i])
            reached = accuracy[i]
    return area
