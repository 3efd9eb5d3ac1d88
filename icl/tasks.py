"""What is sampled: the regression task a context is drawn from, as immutable data."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from icl.errors import choose, require

VALUES = ("gaussian", "signs", "sphere")

# The best linear weights of a batch of functions, (B, d), and the functions: x (B, n, d) to (B, n).
Responses = tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]


@dataclass(frozen=True)
class SparseLinear:
    """Sparse linear regression: y = <w, x> + noise, with s of the d weights non-zero.

    x ~ N(0, Σ); the noise is N(0, noise²). The support of w is uniform over the
    C(d, s) subsets. Its values are `gaussian` (independent N(0, 1)), `signs` (±1) or
    `sphere` (uniform on the sphere |w|² = s), so E[w wᵀ] = (s/d) I for all three.
    s = d gives dense regression.

    `covariance` is () for Σ = I, d variances for a diagonal Σ, or d rows for a full one.
    `prior` is a second moment Ω = E[w wᵀ] in the same form: such weights are those above
    times √(d/s) chol(Ω), so that dense `gaussian` ones are N(0, Ω). () changes nothing.
    """

    d: int = 8
    s: int = 2
    n: int = 32
    noise: float = 1.0
    values: str = "gaussian"
    covariance: tuple = ()
    prior: tuple = ()

    def __post_init__(self):
        require(self.d >= 1, f"d={self.d}: at least one feature is needed")
        require(1 <= self.s <= self.d, f"s={self.s}: allowed are 1 to d={self.d}")
        require(self.n >= 1, f"n={self.n}: at least one example is needed")
        require(self.noise >= 0, f"noise={self.noise}: allowed are 0 and above")
        choose("values", self.values, VALUES)
        object.__setattr__(self, "noise", float(self.noise))
        for name in ("covariance", "prior"):
            given = getattr(self, name)
            # Lists, as read from a file, and tuples must give the same task and hash.
            nested = tuple(tuple(map(float, x)) if np.ndim(x) else float(x) for x in given)
            object.__setattr__(self, name, nested)
            matrix = _matrix(nested, self.d)
            require(
                matrix.shape == (self.d, self.d)
                and np.allclose(matrix, matrix.T)
                and np.linalg.eigvalsh(matrix).min() > 0,
                f"{name} of shape {np.shape(given)}: allowed are () for the identity, "
                f"{self.d} positive variances, or a positive definite {self.d}×{self.d} matrix",
            )

    @property
    def sigma(self) -> np.ndarray:
        """Covariance Σ of the features, (d, d)."""
        return _matrix(self.covariance, self.d)

    @property
    def omega(self) -> np.ndarray:
        """Second moment Ω = E[w wᵀ] of the weights, (d, d)."""
        return _matrix(self.prior, self.d) if self.prior else self.s / self.d * np.eye(self.d)

    @property
    def label_moment(self) -> np.ndarray:
        """E[y² x xᵀ], (d, d): 2 ΣΩΣ + (tr(ΩΣ) + noise²) Σ, by Isserlis' theorem."""
        sigma, omega = self.sigma, self.omega
        power = np.trace(omega @ sigma) + self.noise**2
        return 2 * sigma @ omega @ sigma + power * sigma

    def draw_responses(self, rng: np.random.Generator, batch: int) -> Responses:
        """Draw `batch` linear functions."""
        w = self.draw_weights(rng, batch)
        return w, lambda x: np.einsum("bnd,bd->bn", x, w)

    def draw_weights(self, rng: np.random.Generator, batch: int) -> np.ndarray:
        """Draw `batch` weight vectors from the prior, (batch, d)."""
        shape = (batch, self.s)
        if self.values == "signs":
            values = rng.choice([-1.0, 1.0], size=shape)
        else:
            values = rng.standard_normal(shape)
            if self.values == "sphere":
                values *= np.sqrt(self.s) / np.linalg.norm(values, axis=1, keepdims=True)
        support = rng.random((batch, self.d)).argsort(axis=1)[:, : self.s]
        weights = np.zeros((batch, self.d))
        np.put_along_axis(weights, support, values, axis=1)
        if not self.prior:
            return weights
        return np.sqrt(self.d / self.s) * weights @ np.linalg.cholesky(self.omega).T


def _matrix(given: tuple, d: int) -> np.ndarray:
    if not given:
        return np.eye(d)
    matrix = np.asarray(given, dtype=float)
    return np.diag(matrix) if matrix.ndim == 1 else matrix
