"""Summaries against NumPy, and the interval's coverage against known distributions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobilezoo_latency.stats import bootstrap_interval, mad, percentile, ratio_interval, summary


@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=200))
def test_a_summary_is_ordered_and_within_the_samples(samples):
    s = summary(samples)
    slack = 1e-9 * max(samples)
    assert min(samples) - slack <= s["ci_low_ms"] <= s["median_ms"] + slack
    assert s["median_ms"] <= s["ci_high_ms"] + slack <= max(samples) + 2 * slack
    assert s["median_ms"] <= s["p90_ms"] + slack <= s["p99_ms"] + 2 * slack <= max(samples) + 3 * slack
    assert s["mad_ms"] >= 0


def test_percentiles_and_deviation_equal_numpys():
    x = np.random.default_rng(0).lognormal(size=1001)
    assert percentile(x, 99) == pytest.approx(np.percentile(x, 99))
    assert mad(list(x)) == pytest.approx(np.median(np.abs(x - np.median(x))))


def test_the_same_samples_give_the_same_interval():
    x = np.random.default_rng(1).normal(5, 1, 500)
    assert bootstrap_interval(x) == bootstrap_interval(x)


def test_the_interval_covers_the_true_median_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        low, high = bootstrap_interval(rng.lognormal(1.0, 0.1, 128), resamples=300)
        inside += low <= np.e <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_correlated_samples_get_a_wider_interval_than_shuffled_ones():
    rng = np.random.default_rng(3)
    walk = 10 + np.convolve(rng.normal(size=1100), np.ones(100) / 10, mode="valid")
    shuffled = rng.permutation(walk)
    width = [high - low for low, high in (bootstrap_interval(walk), bootstrap_interval(shuffled))]
    assert width[0] > 1.5 * width[1]


def test_one_sample_is_its_own_interval():
    assert bootstrap_interval([3.0]) == (3.0, 3.0)


def test_a_ratio_lies_in_its_interval():
    ratio, low, high = ratio_interval([1.9, 2.0, 2.1, 2.0, 2.05])
    assert low <= ratio == 2.0 <= high
