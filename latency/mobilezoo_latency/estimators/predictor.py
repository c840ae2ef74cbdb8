"""A learned predictor of one device's latency, with a calibrated interval.

Two parts, as in Gaussian process regression with an explicit mean (Rasmussen and Williams 2006, section 2.7):

1. a physical mean: non-negative milliseconds per kernel, per million multiply-adds and per megabyte moved, for each
   kind of kernel, fitted to relative errors; for a device with few measurements another device's predictor instead;
2. a Gaussian process on the logarithm of what the mean leaves, over standardized log features (scikit-learn).

The interval is the process's own deviation times a factor that makes it cover the training networks when they are held
out, a fold at a time (cross-conformal prediction; Vovk et al. 2005, Vovk 2015).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from mobilezoo.config import Record
from mobilezoo.errors import MobilezooError, existing_path
from mobilezoo.files import write_text
from mobilezoo.latency_report import DeviceInfo, Estimate
from mobilezoo.reading import read_json
from mobilezoo_latency.contract import LatencySource
from mobilezoo_latency.estimators.kernels import FEATURES, Kernel, features, kernels_of

MIN_NETWORKS = 8
COVERAGE = 0.9
FOLDS = 10
MOST_NETWORKS = 2000
"""Most networks of a fit: time grows with the cube of their number, memory with the square."""
FEW = 60
"""Up to so many networks, hyperparameters are fitted anew for every fold: from few networks they are themselves fitted
to the network that is held out, and intervals would be too narrow."""


class Measured(NamedTuple):
    """A network and its latency."""

    kernels: Sequence[Kernel]
    ms: float


class PredictorRecord(Record):
    """Data and hyperparameters of a predictor, saved as JSON; it holds no code."""

    schema_version: Literal[1] = 1
    device: DeviceInfo
    feature_names: tuple[str, ...] = FEATURES
    inputs: tuple[tuple[NonNegativeFloat, ...], ...] = Field(min_length=1, max_length=MOST_NETWORKS)
    """Features of the measured networks."""
    latencies_ms: tuple[PositiveFloat, ...]
    rates: tuple[float, ...] = ()
    """Milliseconds per unit of each feature, then the constant; empty where `source` is the mean."""
    source: "PredictorRecord | None" = None
    length_scale: PositiveFloat
    signal: NonNegativeFloat
    noise: PositiveFloat
    """Deviations of the process and of single measurements, in log units."""
    widening: NonNegativeFloat
    """Factor on the deviation that gives `coverage`."""
    coverage: float = COVERAGE
    error_percent: NonNegativeFloat
    """Mean absolute percentage error on networks that were held out of the fit."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        width = len(self.feature_names)
        if len(self.latencies_ms) != len(self.inputs) or any(len(row) != width for row in self.inputs):
            raise ValueError(f"a latency and {width} features of every network")
        if len(self.rates) != (0 if self.source else width + 1):
            raise ValueError(f"{width + 1} rates, or a source and no rates")
        return self


class Predictor(LatencySource):
    """A fitted predictor of one device."""

    def __init__(self, record: PredictorRecord) -> None:
        if record.feature_names != FEATURES:
            raise MobilezooError(f"predictor of {record.device.name}: made for other features: train it again")
        self.record = record
        self._source = Predictor(record.source) if record.source else None
        x = np.asarray(record.inputs, dtype=np.float64)
        logs = np.log1p(x)
        self._center, self._spread = logs.mean(axis=0), logs.std(axis=0)
        self._known = self._standard(x)
        residual = np.log(np.asarray(record.latencies_ms)) - np.log(self._mean_ms(x))
        self._offset = float(residual.mean())
        covariance = self._kernel(self._known, self._known) + record.noise**2 * np.eye(len(x))
        try:
            self._inverse = np.linalg.inv(covariance)
        except np.linalg.LinAlgError:
            raise MobilezooError(
                f"predictor of {record.device.name}: its numbers give no fit: train it again"
            ) from None
        self._alpha = self._inverse @ (residual - self._offset)

    def predict(self, artifact: str | Path) -> Estimate:
        """Estimates the latency of a LiteRT file, with the interval that covers `coverage` of new networks."""
        return self.predict_kernels(kernels_of(artifact))

    def predict_kernels(self, kernels: Sequence[Kernel]) -> Estimate:
        """Estimates the latency of a network given by its kernels. Raises MobilezooError for a damaged predictor."""
        record = self.record
        with np.errstate(all="ignore"):  # values that are not finite raise below
            ms, deviation = self._predict(np.asarray([features(kernels)]))
            width = float(np.exp(record.widening * deviation[0]))
        if not (math.isfinite(float(ms[0]) * width) and ms[0] > 0):
            raise MobilezooError(f"predictor of {record.device.name}: its numbers give no latency: train it again")
        return Estimate(
            latency_ms=float(ms[0]),
            low_ms=float(ms[0]) / width,
            high_ms=float(ms[0]) * width,
            error_percent=record.error_percent,
            basis=f"{len(record.inputs)} networks on {record.device.name}, {record.coverage:.0%} interval",
        )

    def save(self, path: str | Path) -> Path:
        """Write the record as JSON, atomically."""
        return write_text(Path(path), self.record.model_dump_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a saved predictor. Raises MobilezooError for a damaged one."""
        return cls(PredictorRecord.parse(read_json(existing_path(path, "predictor")), str(path)))

    def _predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ms, deviation of the log) of feature rows."""
        across = self._kernel(self._standard(x), self._known)
        log_ms = np.log(self._mean_ms(x)) + self._offset + across @ self._alpha
        explained = np.einsum("ij,jk,ik->i", across, self._inverse, across)
        variance = self.record.signal**2 - explained + self.record.noise**2
        return np.exp(log_ms), np.sqrt(np.maximum(variance, self.record.noise**2))

    def _mean_ms(self, x: np.ndarray) -> np.ndarray:
        if self._source is not None:
            return self._source._predict(x)[0]
        rates = np.asarray(self.record.rates)
        return np.maximum(x @ rates[:-1] + rates[-1], 1e-9)

    def _standard(self, x: np.ndarray) -> np.ndarray:
        """Log features in units of their spread; features that never vary are left out."""
        varies = self._spread > 1e-9
        return (np.log1p(x)[:, varies] - self._center[varies]) / self._spread[varies]

    def _kernel(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = ((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2)
        return self.record.signal**2 * np.exp(-0.5 * squared / self.record.length_scale**2)


def train(measured: Sequence[Measured], device: DeviceInfo, source: Predictor | None = None) -> Predictor:
    """Fits a predictor to measured networks.

    With `source`, a second fit uses that predictor as its mean, which suits a handful of measurements; of the two, the
    one with the smaller error on held-out networks is returned.

    Args:
        measured: at least MIN_NETWORKS networks with their latency.
        device: the measured device.
        source: predictor of another device.

    Raises:
        MobilezooError: too few networks, or a latency that is not positive.
    """
    if len(measured) < MIN_NETWORKS:
        raise MobilezooError(f"a predictor needs at least {MIN_NETWORKS} measured networks, got {len(measured)}")
    if not all(m.ms > 0 and math.isfinite(m.ms) for m in measured):
        raise MobilezooError("a predictor needs positive latencies")
    x = np.asarray([features(m.kernels) for m in measured])
    ms = np.asarray([m.ms for m in measured])
    plain = PredictorRecord(
        device=device,
        inputs=tuple(map(tuple, x.tolist())),
        latencies_ms=tuple(ms.tolist()),
        rates=_rates(x, ms),
        length_scale=1.0,
        signal=1.0,
        noise=1.0,
        widening=1.0,
        error_percent=0.0,
    )
    alone = _calibrated(_with_process(plain))
    if source is None:
        return alone
    carried = _calibrated(_with_process(plain.model_copy(update={"rates": (), "source": source.record})))
    return min(carried, alone, key=lambda predictor: predictor.record.error_percent)


def _rates(x: np.ndarray, ms: np.ndarray) -> tuple[float, ...]:
    """Non-negative rates that minimize the squared relative error, with a little shrinkage for what never varies."""
    from scipy.optimize import nnls

    rows = np.hstack([x, np.ones((len(x), 1))]) / ms[:, None]
    scale = np.maximum(np.abs(rows).max(axis=0), 1e-12)
    shrink = 1e-3 * np.eye(rows.shape[1])
    solution, _ = nnls(np.vstack([rows / scale, shrink]), np.concatenate([np.ones(len(ms)), np.zeros(len(shrink))]))
    return tuple(float(rate) for rate in solution / scale)


def _with_process(record: PredictorRecord) -> PredictorRecord:
    """Length scale, signal and noise by marginal likelihood."""
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

    plain = Predictor(record)
    residual = np.log(np.asarray(record.latencies_ms)) - np.log(plain._mean_ms(np.asarray(record.inputs)))
    kernel = ConstantKernel(0.01, (1e-6, 1e2)) * RBF(3.0, (0.3, 100.0)) + WhiteKernel(1e-3, (1e-7, 1.0))
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=2, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a bound that is reached is an answer too
        process.fit(plain._known, residual - residual.mean())
    fitted = process.kernel_
    found = {
        "signal": float(np.sqrt(fitted.k1.k1.constant_value)),
        "length_scale": float(fitted.k1.k2.length_scale),
        "noise": float(np.sqrt(fitted.k2.noise_level)),
    }
    return record.model_copy(update=found)


def held_out(record: PredictorRecord) -> tuple[np.ndarray, np.ndarray]:
    """(log residual, deviation) of every training network from a fit to the other folds, rates included.

    Rates fitted to a network flatter it, so leaving it out of the process alone would promise too much.
    """
    n = len(record.inputs)
    fold = np.random.default_rng(0).permutation(n) % min(FOLDS, n)
    residual, deviation = np.empty(n), np.empty(n)
    x, ms = np.asarray(record.inputs), np.asarray(record.latencies_ms)
    for k in range(fold.max() + 1):
        rest = fold != k
        # rates are fitted anew: those of all networks have seen the held-out ones
        update = {
            "inputs": tuple(map(tuple, x[rest].tolist())),
            "latencies_ms": tuple(ms[rest].tolist()),
            "rates": () if record.source else _rates(x[rest], ms[rest]),
        }
        part = record.model_copy(update=update)
        guess, deviation[~rest] = Predictor(_with_process(part) if n <= FEW else part)._predict(x[~rest])
        residual[~rest] = np.log(ms[~rest] / guess)
    return residual, deviation


def _calibrated(record: PredictorRecord) -> Predictor:
    """The predictor with its error and the widening that reaches the coverage, from held-out networks."""
    residual, deviation = held_out(record)
    scores = np.sort(np.abs(residual) / deviation)
    rank = min(len(scores), math.ceil(record.coverage * (len(scores) + 1)))
    error = 100 * fmean(abs(math.expm1(-r)) for r in residual)
    return Predictor(record.model_copy(update={"widening": float(scores[rank - 1]), "error_percent": error}))
