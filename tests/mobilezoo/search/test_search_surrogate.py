"""The Gaussian process of guided search against finite differences and functions it must be able to learn."""

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from mobilezoo.search.engines.surrogate import GaussianProcess


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


def test_choices_that_act_together_are_learned() -> None:
    x, far = rows(150), rows(200, seed=3)

    def value(rows: np.ndarray) -> np.ndarray:
        return np.where((rows[:, 0] > 0) == (rows[:, 1] > 0), 1.0, -1.0) + 0.3 * rows[:, 2]

    process = GaussianProcess(x, value(x))
    mean, std = process.predict(far)
    assert np.corrcoef(mean, value(far))[0, 1] > 0.95
    assert process.predict(x)[1].mean() < std.mean()
