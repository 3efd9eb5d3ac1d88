"""What is sampled: the regression task a context is drawn from, as immutable data."""

from dataclasses import dataclass

import numpy as np

from icl.errors import choose, require

VALUES = ("gaussian", "signs", "sphere")


@dataclass(frozen=True)
class SparseLinear:
    """Sparse linear regression: y = <w, x> + noise, with s of the d weights non-zero.

    x ~ N(0, Σ); the noise is N(0, noise²). The support of w is uniform over the
    C(d, s) subsets. Its values are `gaussian` (independent N(0, 1)), `signs` (±1) or
    `sphere` (uniform on the sphere |w|² = s), so E[w wᵀ] = (s/d) I for all three.
    s = d gives dense regression.

    `covariance` is () for Σ = I, d variances for a diagonal Σ, or d rows for a full one.
    """

    d: int = 8
    s: int = 2
    n: int = 32
    noise: float = 1.0
    values: str = "gaussian"
    covariance: tuple = ()

    def __post_init__(self):
        require(self.d >= 1, f"d={self.d}: at least one feature is needed")
        require(1 <= self.s <= self.d, f"s={self.s}: allowed are 1 to d={self.d}")
        require(self.n >= 1, f"n={self.n}: at least one example is needed")
        require(self.noise >= 0, f"noise={self.noise}: allowed are 0 and above")
        choose("values", self.values, VALUES)
        # Lists, as read from a file, and tuples must give the same task and hash.
        nested = tuple(
            tuple(map(float, row)) if np.ndim(row) else float(row) for row in self.covariance
        )
        object.__setattr__(self, "covariance", nested)
        object.__setattr__(self, "noise", float(self.noise))
        sigma = self.sigma
        require(
            sigma.shape == (self.d, self.d)
            and np.allclose(sigma, sigma.T)
            and np.linalg.eigvalsh(sigma).min() > 0,
            f"covariance of shape {np.shape(self.covariance)}: allowed are () for the identity, "
            f"{self.d} positive variances, or a positive definite {self.d}×{self.d} matrix",
        )

    @property
    def sigma(self) -> np.ndarray:
        """Covariance Σ of the features, (d, d)."""
        if not self.covariance:
            return np.eye(self.d)
        sigma = np.asarray(self.covariance, dtype=float)
        return np.diag(sigma) if sigma.ndim == 1 else sigma

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
        return weights
