"""Bayesian search: its Gaussian process against finite differences and functions it must learn, its gains against
brute force."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from mobilezoo.search.engines.bayesian import BEYOND, _area_gain, _volume_gain
from mobilezoo.search.engines.surrogate import GaussianProcess
from mobilezoo.search.objective import hypervolume


def rows(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1, 3, (n, 5)).astype(np.int16)


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences() -> None:
    x = rows(30)
    process = GaussianProcess(x, np.sin(x @ np.arange(1.0, 6.0)))
    differs = (x[:, None, :] != x[None, :, :]).reshape(900, 5).astype(np.float32)
    start = np.log(np.full(12, 0.3))
    at = start + np.random.default_rng(1).normal(0, 0.5, 12)
    _, gradient = process._loss(at, differs, start)
    numeric = approx_fprime(at, lambda p: process._loss(p, differs, start)[0], 1e-6)
    assert gradient == pytest.approx(numeric, rel=1e-3, abs=1e-3)


def test_a_sum_of_choices_is_learned_from_few_networks() -> None:
    effects = np.random.default_rng(2).normal(0, 1, (5, 4))
    x, far = rows(40), rows(200, seed=3)

    def value(rows: np.ndarray) -> np.ndarray:
        return effects[np.arange(5), rows + 1].sum(axis=1)

    mean, std = GaussianProcess(x, value(x)).predict(far)
    error = mean - value(far)
    assert np.abs(error).mean() < 0.1 * value(far).std()
    assert (np.abs(error) < 4 * std).mean() > 0.95


def test_main_effects_are_those_of_all_combinations() -> None:
    x = rows(40)
    process = GaussianProcess(x, 2.0 * x[:, 1] + x[:, 0] * x[:, 2] + np.random.default_rng(1).normal(0, 0.1, 40))
    every = np.stack(np.meshgrid(*[[-1, 0, 1, 2]] * 5), axis=-1).reshape(-1, 5).astype(np.int16)
    mean, _ = process.predict(every)
    means = np.array([[mean[every[:, gene] == value].mean() for value in (-1, 0, 1, 2)] for gene in range(5)])
    assert process.main_effects() == pytest.approx(means.var(axis=1) / mean.var(), rel=1e-6)
    assert process.main_effects()[1] > 0.5


def test_choices_that_act_together_are_learned() -> None:
    x, far = rows(150), rows(200, seed=3)

    def value(rows: np.ndarray) -> np.ndarray:
        return np.where((rows[:, 0] > 0) == (rows[:, 1] > 0), 1.0, -1.0) + 0.3 * rows[:, 2]

    process = GaussianProcess(x, value(x))
    mean, std = process.predict(far)
    assert np.corrcoef(mean, value(far))[0, 1] > 0.95
    assert process.predict(x)[1].mean() < std.mean()


@pytest.mark.parametrize("criteria", [3, 4])
def test_the_gain_of_many_criteria_is_the_hypervolume_won(criteria: int) -> None:
    rng = np.random.default_rng(0)
    traded, candidates = (rng.uniform(0, 1, (n, criteria)) ** 2 + 0.1 for n in (12, 40))
    traded[:, 0], candidates[:, 0] = -traded[:, 0], 0.3 - candidates[:, 0]
    worst = np.append(traded[:, 0].min(), traded[:, 1:].max(axis=0))
    scale = np.ptp(traded, axis=0)
    signs = np.array([-1.0] + [1.0] * (criteria - 1))
    corner = worst + signs * 0.05 * scale
    places = corner - signs * rng.uniform(0, 1.5, (200_000, criteria)) * scale

    def dominated(point: np.ndarray) -> np.ndarray:
        return (point * signs <= places * signs).all(axis=1)

    held = np.logical_or.reduce([dominated(point) for point in traded])
    won = np.array([(dominated(point) & ~held).mean() for point in candidates])
    assert (won > 0.001).sum() > 5
    drawn = np.broadcast_to(candidates, (200, *candidates.shape))
    gain = _volume_gain(traded, drawn, rng)
    assert np.corrcoef(gain, won)[0, 1] > 0.95
    assert int(np.argmax(gain)) in np.argsort(won)[-2:]


def test_the_gain_of_two_criteria_is_the_area_won() -> None:
    rng = np.random.default_rng(0)
    traded, candidates = rng.uniform(0.1, 1, (12, 2)), rng.uniform(0.2, 1.2, (40, 2))
    worst = (traded[:, 0].min(), BEYOND * max(traded[:, 1].max(), candidates[:, 1].max()))

    def area(points: np.ndarray) -> float:
        return hypervolume(points[:, 0].tolist(), points[:, 1].tolist(), worst)

    won = [area(np.append(traded, [candidate], axis=0)) - area(traded) for candidate in candidates]
    assert sum(gain == 0 for gain in won) in range(5, 35)
    assert _area_gain(traded, candidates, np.full_like(candidates, 1e-9)) == pytest.approx(won)


def test_the_expected_gain_of_an_area_is_the_mean_over_what_may_be() -> None:
    rng = np.random.default_rng(0)
    traded, mean = rng.uniform(0.1, 1, (12, 2)), rng.uniform(0.1, 1, (40, 2))
    std = rng.uniform(0.02, 0.4, (40, 2))
    slowest = [[0.0, 3.0]]  # all measure the area up to there

    def gain(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
        return _area_gain(traded, np.append(mean, slowest, axis=0), np.append(std, [[1e-9, 1e-9]], axis=0))[:-1]

    expected = gain(mean, std)
    for number in (0, 13, 39):
        drawn = mean[number] + std[number] * rng.standard_normal((4000, 2))
        assert expected[number] == pytest.approx(gain(drawn, np.full_like(drawn, 1e-9)).mean(), rel=0.1)
