"""Accuracy of candidates by a predictor, fitted to a few hundred networks that a supernet scores."""

import contextlib
import json
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobilezoo.artifacts import save_json
from mobilezoo.config import Record
from mobilezoo.errors import ConfigError
from mobilezoo.reading import MAX_JSON_BYTES, mapping, parse_json, read_text
from mobilezoo.search.engines.surrogate import Encoder, GaussianProcess
from mobilezoo.search.genes import Genome
from mobilezoo.search.space import Point
from mobilezoo.search.storage import writing_in
from mobilezoo.search.supernet.accuracy import SupernetAccuracy

if TYPE_CHECKING:
    from mobilezoo.search.records import Candidate

HELD_OUT = 0.2
"""Share of the scored networks that the predictor is tested on before it learns from them too."""


class PredictorReport(Record):
    """Error of a predictor on held-out networks."""

    networks: int
    """Number of networks that the supernet scored."""
    held_out: int
    spearman: float
    """Rank correlation of predicted and scored top-1 over the held-out networks."""
    mean_abs_error: float
    """Percentage points of top-1."""


class PredictedAccuracy(SupernetAccuracy):
    """`Evaluate` of a search by prediction; its error is in `supernet/predictor.json`, and `write` scores the front."""

    def check(self) -> None:
        """As for a supernet; also raises ConfigError for a space with too few networks."""
        super().check()
        wanted, networks = self.settings.predictor_samples, self.config.space.count()
        if networks < 2 * wanted:
            raise ConfigError(
                f"supernet.predictor_samples = {wanted}: the space has {networks} networks: use accuracy=supernet"
            )

    def __call__(self, candidate: "Candidate") -> float:
        return float(self.predict([candidate.point])[0])

    def predict(self, points: list[Point]) -> np.ndarray:
        """Predicts the top-1 in percent of each point, [points]."""
        mean, _ = self._learned.predict(self._encode([self.config.space.genome(point) for point in points]))
        return np.clip(mean, 0.0, 100.0)

    @cached_property
    def _learned(self) -> GaussianProcess:
        with writing_in(self.folder):  # a second worker waits, and then reads the scores
            genomes, top1 = self._samples()
        x, few = self._encode(genomes), round(len(genomes) * (1 - HELD_OUT))
        tried = GaussianProcess(x[:few], top1[:few])
        report = prediction_report(tried.predict(x[few:])[0], top1[few:], len(genomes))
        save_json(self.folder / "predictor.json", report)
        self.on_message(
            f"predictor: Spearman {report.spearman:.2f}, error {report.mean_abs_error:.2f} points on {report.held_out} "
            "held-out networks"
        )
        return GaussianProcess(x, top1, tried.parameters)

    def _encode(self, genomes: list[Genome]) -> np.ndarray:
        return Encoder(self.config.space.genes)(genomes)

    def _samples(self) -> tuple[list[Genome], np.ndarray]:
        """Scores random networks, each stored in `samples.jsonl` at once, so that a stopped search resumes."""
        genomes = self._drawn()
        kept = _read(self.folder / "samples.jsonl")
        top1 = []
        for number, genome in enumerate(genomes):
            key = json.dumps(genome, sort_keys=True)
            if key not in kept:
                kept[key] = self.top1(self.config.space.point(genome))
                with (self.folder / "samples.jsonl").open("a", encoding="utf-8") as handle:
                    # The line break comes first, so that a line cut off by a kill ruins only itself.
                    handle.write("\n" + json.dumps({"genome": genome, "top1": kept[key]}))
                if number % 10 == 9:
                    self.on_message(f"predictor: {number + 1} of {len(genomes)} networks scored")
            top1.append(kept[key])
        return genomes, np.array(top1)

    def _drawn(self) -> list[Genome]:
        """Draws different random networks, reproducible from the search's seed."""
        space, wanted = self.config.space, self.settings.predictor_samples
        rng = np.random.default_rng([self.config.seed, wanted])
        found: dict[tuple[object, ...], Genome] = {}
        while len(found) < wanted:  # at least every other draw is a new one
            genome = space.genes.sample(rng)
            found.setdefault(space.genes.key(genome), genome)
        return list(found.values())


def prediction_report(predicted: np.ndarray, scored: np.ndarray, networks: int) -> PredictorReport:
    """Computes the error of predictions.

    Args:
        predicted: top-1 in percent of the held-out networks, [n].
        scored: the supernet's, [n].
        networks: number of scored networks, those of the fit included.
    """
    from scipy.stats import spearmanr

    constant = np.ptp(predicted) == 0 or np.ptp(scored) == 0
    return PredictorReport(
        networks=networks,
        held_out=len(scored),
        spearman=0.0 if constant else float(spearmanr(predicted, scored).statistic),
        mean_abs_error=float(np.abs(predicted - scored).mean()),
    )


def _read(path: Path) -> dict[str, float]:
    """Reads genome → top-1 of networks scored before; a line cut off by a kill is skipped."""
    kept: dict[str, float] = {}
    for line in read_text(path, MAX_JSON_BYTES).splitlines() if path.exists() else ():
        with contextlib.suppress(ConfigError, KeyError, TypeError, ValueError):
            row = mapping(parse_json(line, str(path)), str(path))
            kept[json.dumps(row["genome"], sort_keys=True)] = float(row["top1"])
    return kept
