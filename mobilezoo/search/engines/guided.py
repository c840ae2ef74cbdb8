"""Predictor-guided search: Gaussian processes for accuracy and latency choose among many candidates.

After a random start, each proposal is the candidate with the highest expected improvement, of the reward or of the
front's hypervolume. Accuracy and latency are predicted apart and put through the objective sample by sample, so that
what is known exactly (the reward's shape) is not learned.
"""

import numpy as np

from mobilezoo.search.engines.base import GenomeSampler, Seen
from mobilezoo.search.engines.surrogate import Encoder, GaussianProcess
from mobilezoo.search.genes import Genome
from mobilezoo.search.objective import pareto_front

DRAWS = 64
"""Monte Carlo samples of the predictions per candidate."""
RANDOM, LOCAL = 300, 500
"""Candidates drawn from the whole space, and by mutating the best networks."""
PARENTS = 10
REFIT = 1.2
"""Relevances are learned anew each time the number of trials has grown by this factor."""


class GuidedSampler(GenomeSampler):
    """Bayesian optimisation over genomes."""

    def propose(self, history: list[Seen], rng: np.random.Generator) -> Genome:
        done = [trial for trial in history if trial.reward is not None]
        if len(done) < self.config.population:
            return self.genes.sample(rng)
        candidates = self._candidates(history, done, rng)
        if not candidates:
            return self.genes.sample(rng)
        top1, latency_ms = self._predict(done, candidates, rng)
        gain = self._front_gain if self.config.goal == "front" else self._reward_gain
        return candidates[int(np.argmax(gain(done, top1, latency_ms)))]

    def _candidates(self, history: list[Seen], done: list[Seen], rng: np.random.Generator) -> list[Genome]:
        """Untried points: random ones, and mutants of the best networks one to three choices away."""
        parents = self._parents(done)
        pool = [self.genes.sample(rng) for _ in range(RANDOM)]
        for _ in range(LOCAL):
            genome = parents[int(rng.integers(len(parents)))].genome
            for _ in range(int(rng.integers(1, 4))):
                genome = self.genes.mutate(genome, rng)
            pool.append(genome)
        tried = {self.genes.key(trial.genome) for trial in history}
        unique = {self.genes.key(genome): genome for genome in pool}
        return [genome for key, genome in unique.items() if key not in tried]

    def _parents(self, done: list[Seen]) -> list[Seen]:
        if self.config.goal == "front":
            return [done[i] for i in pareto_front(_top1(done).tolist(), _latency(done).tolist())]
        return sorted(done, key=lambda trial: trial.reward or 0.0)[-PARENTS:]

    def _predict(
        self, done: list[Seen], candidates: list[Genome], rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Samples [draws, candidates] of top-1 and of latency in ms."""
        encode = Encoder(self.genes)
        x, at = encode([trial.genome for trial in done]), encode(candidates)
        learned = self._refit_size(len(done))
        samples = []
        for y, tidy in ((_top1(done), _without_low_tail), (np.log(_latency(done)), np.asarray)):
            parameters = self._parameters(x[:learned], tidy(y[:learned]))
            mean, std = GaussianProcess(x, tidy(y), parameters).predict(at)
            samples.append(mean + std * rng.standard_normal((DRAWS, len(candidates))))
        return samples[0], np.exp(samples[1])

    def _refit_size(self, trials: int) -> int:
        """The largest size of a fixed schedule up to `trials`: a resumed search learns from the same prefix."""
        size = self.config.population
        while (larger := max(size + 1, int(size * REFIT))) <= trials:
            size = larger
        return size

    def _parameters(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Learned once per prefix; the cache holds no state that could not be learned again."""
        key = (len(x), hash(x.tobytes()), hash(y.tobytes()))
        if key not in self._learned:
            self._learned[key] = GaussianProcess(x, y).parameters
        return self._learned[key]

    @property
    def _learned(self) -> dict[tuple[int, int, int], np.ndarray]:
        cache: dict[tuple[int, int, int], np.ndarray] = self.__dict__.setdefault("_cache", {})
        return cache

    def _reward_gain(self, done: list[Seen], top1: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
        """Expected improvement of the best reward, per candidate."""
        best = max(trial.reward for trial in done if trial.reward is not None)
        return np.maximum(0, self.config.objective.rewards(top1, latency_ms) - best).mean(axis=0)

    def _front_gain(self, done: list[Seen], top1: np.ndarray, latency_ms: np.ndarray) -> np.ndarray:
        """Expected improvement of the hypervolume above the lowest accuracy and below the highest latency seen."""
        seen_top1, seen_ms = _top1(done), _latency(done)
        front = pareto_front(seen_top1.tolist(), seen_ms.tolist())
        start = np.append(0.0, seen_ms[front])
        end = np.append(seen_ms[front], seen_ms.max() * 1.05)
        height = np.append(seen_top1.min(), seen_top1[front])
        width = np.maximum(0, end - np.maximum(latency_ms[..., None], start))
        return (width * np.maximum(0, top1[..., None] - height)).sum(axis=-1).mean(axis=0)


def _top1(trials: list[Seen]) -> np.ndarray:
    return np.array([trial.top1 for trial in trials], dtype=np.float64)


def _latency(trials: list[Seen]) -> np.ndarray:
    return np.array([trial.latency_ms for trial in trials], dtype=np.float64)


def _without_low_tail(y: np.ndarray) -> np.ndarray:
    """Failed trainings clipped to three quartile ranges below the median, so that they do not stretch the scale."""
    low, middle, high = np.percentile(y, [25, 50, 75])
    return np.maximum(y, middle - 3 * max(high - low, 1e-9))
