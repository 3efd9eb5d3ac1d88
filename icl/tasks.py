"""What is sampled: the regression task a context is drawn from, as immutable data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from scipy.integrate import quad

from icl.errors import choose, real, require, several, whole

VALUES = ("gaussian", "signs", "sphere")
MOST_FEATURES = 4096  # a covariance takes d² numbers

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
        whole("d", self.d, 1, MOST_FEATURES)
        whole("s", self.s, 1, self.d)
        whole("n", self.n)
        real("noise", self.noise, "[0, 1000000]")
        choose("values", self.values, VALUES)
        object.__setattr__(self, "noise", float(self.noise))
        for name in ("covariance", "prior"):
            given = getattr(self, name)
            # Lists, as read from a file, and tuples must give the same task and hash.
            nested = tuple(_numbers(name, x) for x in several(name, given))
            alike = len({np.shape(x) for x in nested}) < 2
            require(alike, f"{name}: allowed are numbers, or rows of equally many")
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


def require_alike(task: "Task") -> None:
    """Refuse tasks whose features are not independent, of variance 1 and all alike."""
    alike = isinstance(task, SparseLinear) and task.prior == () and task.covariance == ()
    require(alike, f"{task}: allowed are sparse linear tasks whose features are all alike")


def _numbers(name: str, given: Any) -> float | tuple:
    """A number, or a row of them."""
    if isinstance(given, list | tuple | np.ndarray):
        for x in given:
            real(name, x, "(-inf, inf)")
        return tuple(map(float, given))
    real(name, given, "(-inf, inf)")
    return float(given)


def _matrix(given: tuple, d: int) -> np.ndarray:
    if not given:
        return np.eye(d)
    matrix = np.asarray(given, dtype=float)
    return np.diag(matrix) if matrix.ndim == 1 else matrix


# f(x) = g(<v, x>) with v uniform on the unit sphere. Hermite polynomials of different degree
# are uncorrelated under N(0, 1), so 2 and 3 alone have no linear part.
LINKS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sign": np.sign,
    "sine": lambda z: np.sin(2 * z),
    "hermite-1-2": lambda z: z + (z**2 - 1) / 2**0.5,
    "hermite-1-3": lambda z: z + (z**3 - 3 * z) / 6**0.5,
    "hermite-2": lambda z: z**2 - 1,
    "hermite-3": lambda z: z**3 - 3 * z,
}
NETWORK = "relu-network"
RESPONSES = (NETWORK, *LINKS)
UNITS = 16  # hidden units of the network


@dataclass(frozen=True)
class Nonlinear:
    """Nonlinear regression: y = f(x) + noise, x ~ N(0, I), f drawn from `family`.

    `relu-network` is f(x) = √(2/K) Σ_k a_k max(0, <v_k, x>), a_k ~ N(0, 1), v_k ~ N(0, I/d),
    with K = 16 units; the other families are functions of one random direction (`LINKS`).
    All are scaled to E f² = 1. The best linear predictor of f has the weights
    u_f = E[x f(x) | f], and the excess risk is the risk in excess of that predictor's.
    """

    d: int
    n: int
    noise: float
    family: str

    def __post_init__(self):
        choose("family", self.family, RESPONSES)
        whole("d", self.d, 1, MOST_FEATURES)
        whole("n", self.n)
        real("noise", self.noise, "[0, 1000000]")
        object.__setattr__(self, "noise", float(self.noise))

    @property
    def sigma(self) -> np.ndarray:
        """Covariance of the features, (d, d): the identity."""
        return np.eye(self.d)

    @property
    def linear_share(self) -> float:
        """E|u_f|²: the share of E f² = 1 that the best linear predictor explains."""
        return 0.5 if self.family == NETWORK else _moments(self.family)[0] ** 2

    @property
    def omega(self) -> np.ndarray:
        """Second moment of the best linear weights, (d, d)."""
        return self.linear_share / self.d * np.eye(self.d)

    @property
    def label_moment(self) -> np.ndarray:
        """E[y² x xᵀ], (d, d): the identity times E[f² |x|²]/d + noise².

        For a link, |x|² is z² plus d − 1 independent squares, so E[f² |x|²] = E[g² z²] + d − 1.
        For the network E[f² | x] = |x|²/d, because a max(0, ·) keeps half of a Gaussian's
        square, so it is E|x|⁴/d = d + 2.
        """
        d = self.d
        product = d + 2 if self.family == NETWORK else _moments(self.family)[1] + d - 1
        return (product / d + self.noise**2) * np.eye(d)

    def draw_responses(self, rng: np.random.Generator, batch: int) -> Responses:
        """Draw `batch` functions, with the weights u_f of their best linear predictors.

        By Stein's lemma u_f = E[∇f]: every unit of the network is active half of the time.
        """
        if self.family == NETWORK:
            v = rng.standard_normal((batch, UNITS, self.d)) / self.d**0.5
            a = rng.standard_normal((batch, UNITS)) * (2 / UNITS) ** 0.5
            u = np.einsum("bk,bkd->bd", a, v) / 2
            return u, lambda x: (np.maximum(x @ v.swapaxes(1, 2), 0) @ a[..., None])[..., 0]
        v = rng.standard_normal((batch, self.d))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        link, scale = LINKS[self.family], _scale(self.family)
        return _moments(self.family)[0] * v, lambda x: scale * link(np.einsum("bnd,bd->bn", x, v))


def _mean(function: Callable) -> float:
    """E function(z), z ~ N(0, 1); from both sides of 0, where a link may jump."""
    density = lambda z: np.exp(-(z**2) / 2) / (2 * np.pi) ** 0.5  # noqa: E731
    return quad(lambda z: (function(z) + function(-z)) * density(z), 0, 12)[0]


def _scale(family: str) -> float:
    """What makes E g² = 1."""
    return _mean(lambda z: LINKS[family](z) ** 2) ** -0.5


@cache
def _moments(family: str) -> tuple[float, float]:
    """E[z g(z)] and E[z² g(z)²] of the scaled link."""
    link, scale = LINKS[family], _scale(family)
    return (
        _mean(lambda z: z * link(z)) * scale,
        _mean(lambda z: (z * link(z)) ** 2) * scale**2,
    )


Task = SparseLinear | Nonlinear
