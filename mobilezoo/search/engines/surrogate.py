"""Gaussian process over genomes: the surrogate model of the engine `bayesian`.

Covariance sum_i phi_i [a_i = b_i] + s exp(-sum_i theta_i [a_i != b_i]) over the genes i: an additive part for the
effect of each choice alone (Duvenaud et al. 2011, arXiv:1112.4394, first order), and a joint part for their
interactions (Oh et al. 2019, arXiv:1902.00448, use a similar one on graphs of choices). Two relevances per gene are
fitted by maximum likelihood. An inactive gene counts as a value of its own. Exact inference, for the few hundred trials
of a search.
"""

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from mobilezoo.search.genes import GeneSpace, Genome

FLOOR, CEILING = -7.0, 3.0
"""Bounds of the logarithms of all parameters."""


class Encoder:
    """Encodes genomes as rows of integers, a column per free gene; -1 for an inactive gene."""

    def __init__(self, genes: GeneSpace) -> None:
        self._columns = [(g.name, {value: k for k, value in enumerate(g.choices)}) for g in genes.free]

    def __call__(self, genomes: list[Genome]) -> np.ndarray:
        rows = [[codes[g[name]] if name in g else -1 for name, codes in self._columns] for g in genomes]
        return np.array(rows, dtype=np.int16).reshape(len(genomes), len(self._columns))


class GaussianProcess:
    """Exact regression with standardized targets."""

    def __init__(self, x: np.ndarray, y: np.ndarray, parameters: np.ndarray | None = None) -> None:
        """Fits the process to `x` [n, genes] from an Encoder and `y` [n]; `parameters` skips the fit."""
        self._x = x
        self._mean, self._std = float(y.mean()), float(y.std()) or 1.0
        self._y = (y - self._mean) / self._std
        self.parameters = self._fit() if parameters is None else parameters
        k = self._covariance(x, self.parameters) + np.exp(self.parameters[-1]) * np.eye(len(y))
        self._lower = cholesky(k, lower=True, check_finite=False)
        self._alpha = cho_solve((self._lower, True), self._y, check_finite=False)

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicts (mean, standard deviation), each [rows], of the noise-free value at rows `x`."""
        k = self._covariance(x, self.parameters)
        mean = k @ self._alpha
        whitened = solve_triangular(self._lower, k.T, lower=True, check_finite=False)
        genes = self._x.shape[1]
        prior = np.exp(self.parameters[genes:-1]).sum()
        variance = np.maximum(1e-9, prior - np.einsum("nm,nm->m", whitened, whitened))
        return mean * self._std + self._mean, np.sqrt(variance) * self._std

    def main_effects(self) -> np.ndarray:
        """Computes the share of the mean's variance that each gene explains alone, [genes], with a sum <= 1.

        Functional ANOVA (Hutter et al. 2014, ICML), in closed form for this covariance, with all combinations of the
        occurring values equally likely. The remainder to 1 is the share of interactions.
        """
        _, genes = self._x.shape
        theta, phi, s = np.exp(self.parameters[:genes]), np.exp(self.parameters[genes:-2]), np.exp(self.parameters[-2])
        values = [np.unique(column, return_inverse=True)[1] for column in self._x.T]
        spread = np.array([np.bincount(codes, weights=self._alpha).var() for codes in values])
        count = np.array([codes.max() + 1 for codes in values])
        far = np.exp(-theta)
        each = (1 + (count - 1) * far) / count  # mean of a gene's factor in the joint part
        joint = s * (1 - far) * each.prod() / each
        same = self._x[:, None, :] == self._x[None, :, :]
        pairs = np.where(same, 1 + (count - 1) * far**2, 2 * far + (count - 2) * far**2) / count
        of_joint = s**2 * (self._alpha @ (pairs.prod(axis=-1) - each.prod() ** 2) @ self._alpha)
        whole = of_joint + ((phi**2 + 2 * phi * joint) * spread).sum()
        return np.asarray((phi + joint) ** 2 * spread / max(whole, np.finfo(float).tiny))

    def _covariance(self, x: np.ndarray, p: np.ndarray) -> np.ndarray:
        """Computes the noise-free covariance of rows `x` and the training rows, [rows, n]."""
        genes = self._x.shape[1]
        phi = np.exp(p[genes : 2 * genes])
        k = _distances(x, self._x, np.exp(p[:genes]))
        np.exp(np.subtract(p[-2], k, out=k), out=k)
        k += phi.sum()
        k -= _distances(x, self._x, phi)
        return k

    def _fit(self) -> np.ndarray:
        """Maximizes the marginal likelihood, with a weak prior towards equal relevances."""
        from scipy.optimize import minimize

        n, genes = self._x.shape
        differs = (self._x[:, None, :] != self._x[None, :, :]).reshape(n * n, genes).astype(np.float32)
        each = 1 / max(genes, 1)
        # theta, phi, s, noise
        start = np.log(np.concatenate([np.full(genes, 1.5 * each), np.full(genes, 0.5 * each), [0.5, 0.02]]))
        bounds, options = [(FLOOR, CEILING)] * len(start), {"maxiter": 30}
        found = minimize(self._loss, start, (differs, start), "L-BFGS-B", jac=True, bounds=bounds, options=options)
        return np.asarray(found.x)

    def _loss(self, p: np.ndarray, differs: np.ndarray, start: np.ndarray) -> tuple[float, np.ndarray]:
        """Computes (negative log marginal likelihood and prior, its gradient); `differs` is [n * n, genes]."""
        n, genes = self._x.shape
        theta, phi, noise = np.exp(p[:genes]), np.exp(p[genes : 2 * genes]), np.exp(p[-1])
        joint = np.exp(p[-2] - _distances(self._x, self._x, theta))
        k = joint + phi.sum() - _distances(self._x, self._x, phi) + noise * np.eye(n)
        lower = cholesky(k, lower=True, check_finite=False)
        inverse = cho_solve((lower, True), np.eye(n), check_finite=False)
        # d(log likelihood)/dp = trace(outer @ dK/dp) / 2 with outer = alpha alpha^T - K^-1, for all parameters at once.
        alpha = inverse @ self._y
        outer = np.outer(alpha, alpha) - inverse
        weighted = outer * joint
        by_joint, by_gene = np.stack([weighted.ravel(), outer.ravel()]).astype(np.float32) @ differs
        slopes = [theta * by_joint, phi * (by_gene - outer.sum()), [-weighted.sum(), -noise * np.trace(outer)]]
        value = 0.5 * self._y @ alpha + np.log(np.diag(lower)).sum() + np.sum((p - start) ** 2) / 8
        return float(value), np.concatenate(slopes) / 2 + (p - start) / 4


def _distances(a: np.ndarray, b: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """Computes the sum of the relevances `theta` of the genes that differ, [rows of a, rows of b]."""
    same = np.asarray(_one_hot(a, b) * np.repeat(theta, _sizes(a, b)) @ _one_hot(b, a).T)
    return np.subtract(theta.sum(), same, out=same)


def _sizes(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the number of codes per gene, -1 included."""
    return np.asarray(np.maximum(a.max(axis=0, initial=-1), b.max(axis=0, initial=-1)) + 2)


def _one_hot(x: np.ndarray, other: np.ndarray) -> np.ndarray:
    sizes = _sizes(x, other)
    hot = np.zeros((len(x), int(sizes.sum())))
    places = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    hot[np.arange(len(x))[:, None], x + 1 + places] = 1
    return hot
