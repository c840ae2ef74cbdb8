"""A Gaussian process over genomes: the predictor behind guided search.

Covariance exp(-sum_i theta_i [a_i != b_i]) over the genes (Oh et al. 2019, arXiv:1902.00448, use the same idea on
graphs of choices): one relevance per gene, learned by maximum likelihood. An inactive gene counts as a value of its
own. Small data, exact arithmetic, an honest variance: what a search of a few hundred trials needs.
"""

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from mobilezoo.search.genes import GeneSpace, Genome

FLOOR, CEILING = -7.0, 3.0
"""Bounds of the logarithms of relevances and noise."""


class Encoder:
    """Genomes → rows of integers, a column per free gene."""

    def __init__(self, genes: GeneSpace) -> None:
        self._columns = [(g.name, {value: k for k, value in enumerate(g.choices)}) for g in genes.free]

    def __call__(self, genomes: list[Genome]) -> np.ndarray:
        rows = [[codes[g[name]] if name in g else -1 for name, codes in self._columns] for g in genomes]
        return np.array(rows, dtype=np.int16).reshape(len(genomes), len(self._columns))


class GaussianProcess:
    """Exact regression with standardised targets."""

    def __init__(self, x: np.ndarray, y: np.ndarray, parameters: np.ndarray | None = None) -> None:
        """`x` [n, genes] from an Encoder, `y` [n]; `parameters` skips their fitting."""
        self._x = x
        self._mean, self._std = float(y.mean()), float(y.std()) or 1.0
        self._y = (y - self._mean) / self._std
        self.parameters = self._fit() if parameters is None else parameters
        self._factor(self.parameters)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(mean, standard deviation) of the noise-free value at rows `x`."""
        k = np.exp(-_distances(x, self._x, np.exp(self.parameters[:-1])))
        mean = k @ self._alpha
        whitened = solve_triangular(self._lower, k.T, lower=True, check_finite=False)
        variance = np.maximum(1e-9, 1 - np.einsum("nm,nm->m", whitened, whitened))
        return mean * self._std + self._mean, np.sqrt(variance) * self._std

    def _factor(self, parameters: np.ndarray) -> None:
        k = np.exp(-_distances(self._x, self._x, np.exp(parameters[:-1])))
        k += np.exp(parameters[-1]) * np.eye(len(self._y))
        self._lower = cholesky(k, lower=True, check_finite=False)
        self._alpha = cho_solve((self._lower, True), self._y, check_finite=False)

    def _fit(self) -> np.ndarray:
        """Maximise the marginal likelihood, with a mild prior towards equal relevances."""
        from scipy.optimize import minimize

        genes = self._x.shape[1]
        differs = self._x[:, None, :] != self._x[None, :, :]
        start = np.append(np.full(genes, np.log(1.5 / max(genes, 1))), np.log(0.02))

        def loss(p: np.ndarray) -> tuple[float, np.ndarray]:
            k = np.exp(-_distances(self._x, self._x, np.exp(p[:-1])))
            noise = np.exp(p[-1])
            lower = cholesky(k + noise * np.eye(len(k)), lower=True, check_finite=False)
            inverse = cho_solve((lower, True), np.eye(len(k)), check_finite=False)
            alpha = inverse @ self._y
            logdet = 2 * np.log(np.diag(lower)).sum()
            outer = np.outer(alpha, alpha) - inverse
            weighted = outer * k
            slope = np.einsum("mn,mng->g", weighted, differs) * np.exp(p[:-1]) / 2
            gradient = np.append(slope, -noise * np.trace(outer) / 2)
            value = 0.5 * self._y @ alpha + 0.5 * logdet + 0.5 * np.sum((p - start) ** 2) / 4
            return float(value), gradient + (p - start) / 4

        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(FLOOR, CEILING)] * len(start),
                         options={"maxiter": 30})  # fmt: skip
        return np.asarray(found.x)


def _distances(a: np.ndarray, b: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Sum of the relevances `theta` of the genes that differ, [rows of a, rows of b]: one product of matrices."""
    return np.asarray(theta.sum() - _one_hot(a, b) * np.repeat(theta, _sizes(a, b)) @ _one_hot(b, a).T)


def _sizes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Codes per gene, -1 included."""
    return np.asarray(np.maximum(a.max(axis=0, initial=-1), b.max(axis=0, initial=-1)) + 2)


def _one_hot(x: np.ndarray, other: np.ndarray) -> np.ndarray:
    sizes = _sizes(x, other)
    hot = np.zeros((len(x), int(sizes.sum())))
    places = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    hot[np.arange(len(x))[:, None], x + 1 + places] = 1
    return hot
