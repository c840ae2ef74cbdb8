"""Rewards against figures worked out from the papers' formulas; the front against brute force."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilezoo.errors import MobilezooError
from mobilezoo.search.objective import Objective, hypervolume, pareto_front

NETWORKS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 12)), max_size=30)


def test_the_soft_reward_doubles_latency_for_five_percent_accuracy() -> None:
    # Section 3: w = -0.07 was chosen so that twice the latency pays for 5% relative accuracy.
    soft = Objective(target_ms=75)
    assert soft(75.2, 75.0) == pytest.approx(0.752)
    assert soft(50.0, 150.0) == pytest.approx(0.5 * 2**-0.07)
    assert soft(50.0 * 1.05, 150.0) == pytest.approx(soft(50.0, 75.0), rel=0.001)
    assert soft(50.0, 37.5) == pytest.approx(0.5 * 2**0.07)


def test_the_hard_reward_ignores_latency_up_to_the_target_and_divides_above() -> None:
    hard = Objective(reward="mnas_hard", target_ms=75)
    assert hard(70.0, 10.0) == hard(70.0, 75.0) == pytest.approx(0.7)
    assert hard(70.0, 150.0) == pytest.approx(0.35)


def test_the_absolute_reward_is_highest_at_the_target() -> None:
    absolute = Objective(reward="tunas", target_ms=84)
    assert absolute(76.0, 84.0) == pytest.approx(0.76)
    assert absolute(76.0, 126.0) == absolute(76.0, 42.0) == pytest.approx(0.71)
    assert Objective(reward="tunas", target_ms=84, beta=-0.2)(76.0, 126.0) == pytest.approx(0.66)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"target_ms": 0}, "target_ms = 0: expected greater than 0"),
        ({"target_ms": 1, "beta": 0.5}, "beta = 0.5"),
        ({"target_ms": 1, "reward": "tunas", "alpha": -0.1}, "one slope"),
        ({"target_ms": 1, "reward": "soft"}, "unknown reward 'soft': did you mean mnas_soft"),
    ],
)
def test_contradictory_objectives_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(MobilezooError, match=message):
        Objective.parse(data, "search.yaml")


@given(NETWORKS)
def test_the_front_holds_what_no_other_dominates(networks: list[tuple[int, int]]) -> None:
    accuracy, latency = [a for a, _ in networks], [t for _, t in networks]
    front = pareto_front(accuracy, latency)
    dominated = {
        i
        for i, (a, t) in enumerate(networks)
        if any(b >= a and s <= t and (b > a or s < t or j < i) for j, (b, s) in enumerate(networks) if j != i)
    }
    assert sorted(front) == sorted(set(range(len(networks))) - dominated)
    assert [latency[i] for i in front] == sorted(latency[i] for i in front)


@given(NETWORKS)
def test_hypervolume_counts_the_dominated_unit_squares(networks: list[tuple[int, int]]) -> None:
    squares = {(a, t) for acc, lat in networks for a in range(acc) for t in range(lat, 12)}
    area = hypervolume([a for a, _ in networks], [t for _, t in networks], worst=(0, 12))
    assert math.isclose(area, len(squares))
