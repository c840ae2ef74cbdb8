"""Bayesian optimization: a Gaussian process per criterion (accuracy, latencies, size) chooses among many candidates.

After a random start, each proposal is the candidate with the highest expected improvement, of the reward or of the
front's hypervolume. The criteria are predicted separately and combined by the objective afterwards, so that the shape
of the reward, which is given, is not learned.
"""

import math

import numpy as np
from scipy.special import ndtr

from mobilezoo.search.engines.base import GenomeSampler, Seen
from mobilezoo.search.engines.surrogate import Encoder, GaussianProcess
from mobilezoo.search.genes import Genome
from mobilezoo.search.objective import pareto_front, undominated

DRAWS = 64
"""Monte Carlo samples of the predictions per candidate."""
RANDOM, LOCAL = 1000, 500
"""Candidates drawn from the whole space, and by mutating the best networks."""
PARENTS = 10
DIRECTIONS = 16
"""Random directions per draw for the hypervolume of three and more criteria."""
MARGIN = 0.05
"""Reference point of the hypervolume of three and more criteria: worst value seen plus this share of the range."""
BEYOND = 2.0
"""Reference point of the area of two criteria, as a multiple of the highest latency: the most accurate network must
contribute to it."""
LEAST = 0.5
"""Lower bound of predicted latency, size and memory, as a share of the smallest positive value seen."""
REFIT = 1.2
"""The Gaussian processes' parameters are fitted again each time the number of trials has grown by this factor."""


class BayesianSampler(GenomeSampler):
    """Bayesian optimization over genomes."""

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        done = [trial for trial in history if trial.reward is not None]
        if len(done) < self.settings.population:
            return self.genes.sample(rng)
        # A Gaussian process per criterion, over the points that the engine chooses among.
        traded = self._traded(done)
        candidates = self._candidates(history, done, traded, rng)
        if not candidates:
            return self.genes.sample(rng)
        mean, std = self._predict(done, traded, candidates)
        # Two criteria have an exact expected improvement; others are estimated from draws of the predictions.
        if self.settings.goal == "front" and traded.shape[1] == 2:
            gain = _area_gain(traded, mean, std)
        else:
            drawn = mean + std * rng.standard_normal((DRAWS, *mean.shape))
            drawn[..., 1:] = np.maximum(drawn[..., 1:], _least(traded))
            to_front = self.settings.goal == "front"
            gain = _volume_gain(traded, drawn, rng) if to_front else self._reward_gain(done, drawn)
        return candidates[int(np.argmax(gain))]

    def _traded(self, done: list[Seen]) -> np.ndarray:
        """Returns [trials, criteria]: top-1, to be maximized, then the criteria to be minimized, latencies first."""
        if self.settings.goal == "front":
            return np.array([trial.traded for trial in done], dtype=np.float64)
        return np.array([(trial.top1, trial.latency_ms) for trial in done], dtype=np.float64)

    def _candidates(
        self, history: list[Seen], done: list[Seen], traded: np.ndarray, rng: np.random.Generator
    ) -> list[Genome]:
        """Draws untried points: random ones, and the best networks with one to three mutations."""
        parents = self._parents(done, traded)
        pool = [self.genes.sample(rng) for _ in range(RANDOM)]
        for _ in range(LOCAL):
            genome = parents[int(rng.integers(len(parents)))].genome
            for _ in range(int(rng.integers(1, 4))):
                genome = self.genes.mutate(genome, rng)
            pool.append(genome)
        tried = {self.genes.key(trial.genome) for trial in history}
        unique = {self.genes.key(genome): genome for genome in pool}
        return [genome for key, genome in unique.items() if key not in tried]

    def _parents(self, done: list[Seen], traded: np.ndarray) -> list[Seen]:
        if self.settings.goal == "front":
            return [done[i] for i in undominated(traded * _signs(traded))]
        return sorted(done, key=lambda trial: trial.reward or 0.0)[-PARENTS:]

    def _predict(self, done: list[Seen], traded: np.ndarray, candidates: list[Genome]) -> tuple[np.ndarray, np.ndarray]:
        """Predicts (means, standard deviations), each [candidates, criteria]."""
        encode = Encoder(self.genes)
        x, at = encode([trial.genome for trial in done]), encode(candidates)
        learned = self._refit_size(len(done))
        predicted = []
        for criterion, values in enumerate(traded.T):
            tidy = np.asarray if criterion else _without_low_tail
            parameters = self._parameters(x[:learned], tidy(values[:learned]))
            predicted.append(GaussianProcess(x, tidy(values), parameters).predict(at))
        means, stds = zip(*predicted, strict=True)
        return np.stack(means, axis=-1), np.stack(stds, axis=-1)

    def _refit_size(self, trials: int) -> int:
        """Returns the largest size <= `trials` of a fixed schedule, so that a resumed search fits the same prefix."""
        size = self.settings.population
        while (larger := max(size + 1, int(size * REFIT))) <= trials:
            size = larger
        return size

    def _parameters(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Fits the parameters once per prefix of trials; the cache holds only values that can be computed again."""
        key = (len(x), hash(x.tobytes()), hash(y.tobytes()))
        if key not in self._learned:
            self._learned[key] = GaussianProcess(x, y).parameters
        return self._learned[key]

    @property
    def _learned(self) -> dict[tuple[int, int, int], np.ndarray]:
        cache: dict[tuple[int, int, int], np.ndarray] = self.__dict__.setdefault("_cache", {})
        return cache

    def _reward_gain(self, done: list[Seen], drawn: np.ndarray) -> np.ndarray:
        """Computes the expected improvement of the best reward, per candidate."""
        best = max(trial.reward for trial in done if trial.reward is not None)
        return np.maximum(0, self.settings.objective.rewards(drawn[..., 0], drawn[..., 1]) - best).mean(axis=0)


def _area_gain(traded: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Computes the expected gain of the area dominated by the front, per candidate: exact for two criteria (Emmerich,
    Deutz and Klinkenberg 2011, expected hypervolume improvement).

    The area is cut into strips between neighbors of the front. The width that a candidate fills of a strip depends on
    its latency alone, the height on its top-1 alone, and the two are predicted independently: their expectations
    multiply.
    """
    top1, ms = traded.T
    front = pareto_front(top1.tolist(), ms.tolist())
    start = np.append(np.minimum(_least(traded), ms.min()), ms[front])
    end = np.append(ms[front], BEYOND * max(ms.max(), mean[:, 1].max()))
    height = _excess(mean[:, :1] - np.append(top1.min(), top1[front]), std[:, :1])
    width = _excess(end - mean[:, 1:], std[:, 1:]) - _excess(start - mean[:, 1:], std[:, 1:])
    return np.asarray((width * height).sum(axis=1))


def _excess(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Computes E[max(0, X)] of a normal variable X."""
    z = mean / std
    return np.asarray(mean * ndtr(z) + std * np.exp(-z * z / 2) / math.sqrt(2 * math.pi))


def _least(traded: np.ndarray) -> np.ndarray:
    """Returns the lower bounds of predictions, one per criterion to be minimized."""
    low = traded[:, 1:]
    return LEAST * np.where(low > 0, low, low.max(axis=0)).min(axis=0)


def _volume_gain(traded: np.ndarray, drawn: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Estimates the hypervolume gain per candidate for any number of criteria, by random directions (Golovin and Zhang
    2020, arXiv:2006.04655, hypervolume scalarization): the extent of the dominated region along each direction, to the
    power of the dimension."""
    signs = _signs(traded)
    worst, best = (traded * signs).max(axis=0), (traded * signs).min(axis=0)
    scale = np.maximum(worst - best, 1e-9)
    reach = (worst + MARGIN * scale - traded * signs) / scale  # [trials, criteria], high is good
    possible = (worst + MARGIN * scale - drawn * signs) / scale
    gain = np.zeros(drawn.shape[1])
    for samples in possible:
        directions = np.abs(rng.standard_normal((DIRECTIONS, traded.shape[1])))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        known = _along(reach, directions).max(axis=0)
        gain += np.maximum(0, _along(samples, directions) - known).sum(axis=1)
    return gain


def _along(reach: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Returns [points, directions]: each point's contribution to the hypervolume along each direction."""
    nearest = (np.maximum(0, reach)[:, None, :] / directions).min(axis=-1)
    return np.asarray(nearest ** directions.shape[1])


def _signs(traded: np.ndarray) -> np.ndarray:
    """Returns factors that turn all criteria into ones to be minimized."""
    return np.where(np.arange(traded.shape[1]) == 0, -1.0, 1.0)


def _without_low_tail(y: np.ndarray) -> np.ndarray:
    """Clips values to three interquartile ranges below the median, so that failed trainings do not set the scale."""
    low, middle, high = np.percentile(y, [25, 50, 75])
    return np.maximum(y, middle - 3 * max(high - low, 1e-9))
