"""What can be read off hidden states linearly, and which algorithm the answers in them follow.

After layer l a token e has the hidden state A_l e (see `LinearTransformer`). A probe p answers
<p, A_l x_q>, so its weights are ŵ_l = A_lᵀ p, restricted to the d inputs; any other linear
function of the query is read off alike. Layer 0 is the embedding.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor

from icl import estimators
from icl.contexts import Contexts, draw
from icl.errors import choose, require
from icl.estimators import GradientDescent, PreprocessedGD, ReweightedGD
from icl.predictors import LinearPredictor
from icl.risk import Estimate, estimate, squared_error, summarise
from icl.tasks import SparseLinear
from icl.transformer import LinearTransformer

FITTING_CONTEXTS = 2048
FITTING_SEED = 1  # of stream `tune`; rates and penalties are tuned on its seed 0
STEPS = 20  # how far a walk is followed
ALGORITHMS = {"GD": GradientDescent, "pre-GD": PreprocessedGD, "re-weighted GD": ReweightedGD}
TRIMMED = 0.01  # share of contexts, those with the largest weights, that `explained` leaves out
AVERAGES = ("trimmed", "mean", "median")
ROUNDING = 1e-6  # hidden states are float32: directions of smaller relative size are rounding
PREPROCESSED, NEW = "r̂", "new in ŵ + ĝ"

Hidden = Callable[[Contexts], Iterator[Tensor]]


def states(model: LinearTransformer, contexts: Contexts) -> Iterator[Tensor]:
    """A_lᵀ before and after each layer, restricted to the inputs, (M, B, d, D), float64."""
    require(
        isinstance(model, LinearTransformer),
        f"model with {model.config.attention} attention: hidden states are linear in the token "
        "for linear attention only",
    )
    for hidden in model.hidden(contexts):
        yield hidden[..., :-1, :].double().expand(-1, len(contexts), -1, -1)


def construction(walk: PreprocessedGD, contexts: Contexts) -> Iterator[Tensor]:
    """What Chen et al. (2024) describe, as hidden states like those of `states`, M = 1.

    A token is (x, r̂ ∘ x, <u_t, x>): layer 1 writes the second part, layer 1 + t puts the
    weights u_t of `walk` after t steps in the third.
    """
    inputs = torch.diag_embed(torch.ones_like(contexts.xy))
    none = torch.zeros_like(contexts.xy)
    yield torch.cat([inputs, 0 * inputs, none[..., None]], dim=-1)[None]
    for u in (none, *walk.iterates(contexts)):
        yield torch.cat([inputs, torch.diag_embed(contexts.xy), u[..., None]], dim=-1)[None]


def fit(seen: Tensor, targets: Tensor, contexts: Contexts) -> Tensor:
    """Read-outs P (M, D, K) that minimise E |seen P_k − t_k|²_Σ over `contexts`.

    seen: (M, B, d, D) hidden states; targets: (B, d, K) or (M, B, d, K), column k is t_k.
    For t = w that is the excess risk. Linear least squares, in closed form.
    """
    factor = torch.linalg.cholesky(_sigma(contexts)).T
    rows = (factor @ seen).flatten(1, 2)
    wanted = (factor @ targets).expand(len(seen), -1, -1, -1).flatten(1, 2)
    size = rows.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-300)
    # The triangular factor of [rows, wanted] has all that least squares needs.
    small = torch.linalg.qr(torch.cat([rows / size, wanted], dim=-1), mode="r").R
    width = rows.shape[-1]
    inverse = torch.linalg.pinv(small[..., :width], rtol=ROUNDING)
    return inverse @ small[..., width:] / size.mT


def read(seen: Tensor, readouts: Tensor) -> Tensor:
    """The weight vectors (M, B, d, K) that read-outs (M, D, K) find in (M, B, d, D)."""
    return seen @ readouts[:, None]


def scales(contexts: Contexts, weights: Tensor) -> dict[str, Tensor]:
    """Scales c, (..., B, d), that an algorithm at `weights` could give the features, by name.

    r̂ is the preprocessing of the first layer; ŵ + ĝ, the weights and the correlations they
    leave, is that of `ReweightedGD`. What is new in it is its part orthogonal to r̂ in every
    context: the rest is r̂ times a number, which takes no other preprocessing than the first.
    """
    r = contexts.xy
    left = r - torch.einsum("...ij,...j->...i", contexts.xx, weights)
    again = weights + left
    along = (again * r).sum(-1, keepdim=True) / r.square().sum(-1, keepdim=True)
    return {PREPROCESSED: r, "ŵ": weights, "ŵ + ĝ": again, NEW: again - along * r}


def r_squared(products: Tensor, scale: Tensor, contexts: Contexts) -> Tensor:
    """R² (M,) of `products` (M, B, d, d), whose column j was read for c_j x_j; mean over j."""
    error = products - torch.diag_embed(scale)
    missed = torch.einsum("mbij,ik,mbkj->mj", error, _sigma(contexts), error)
    size = scale.square().sum(dim=-2) * _sigma(contexts).diagonal()
    return (1 - missed / size).mean(dim=-1)


@dataclass(frozen=True)
class Layer:
    """The best linear read-outs after one layer, on contexts they were not fitted on.

    weights: (M, B, d) weights of the probe for the answer.
    readable: by name of a scale c (see `scales`), R² (M,) of reading c_j x_qj.
    """

    weights: Tensor
    readable: dict[str, Tensor]


def probe(hidden: Hidden, fitting: Contexts, contexts: Contexts) -> list[Layer]:
    """Probe the embedding and every layer: fit on one batch of contexts, read on another."""
    found = []
    for seen, new in zip(hidden(fitting), hidden(contexts), strict=True):
        answer = fit(seen, fitting.w[..., None], fitting)
        fitted, weights = (read(x, answer)[..., 0] for x in (seen, new))
        wanted, truth = scales(fitting, fitted), scales(contexts, weights)
        targets = torch.cat([torch.diag_embed(c.expand_as(fitted)) for c in wanted.values()], -1)
        products = read(new, fit(seen, targets, fitting)).split(contexts.task.d, dim=-1)
        readable = {
            name: r_squared(part, truth[name], contexts)
            for name, part in zip(wanted, products, strict=True)
        }
        found.append(Layer(weights, readable))
    return found


def explained(
    weights: Tensor, walk: Iterable[Tensor], contexts: Contexts, average: str = "trimmed"
) -> Tensor:
    """Fraction of `weights` (M, B, d) that the nearest step of a walk explains, (M,).

    The largest value, over the steps u (B, d) of `walk`, of 1 − E|ŵ − u|²_Σ / E|ŵ|²_Σ. It is
    1 for u = ŵ, 0 for u = 0, and below 0 for what is farther from ŵ than nothing at all.

    E is the mean over all contexts but the hundredth with the largest |ŵ|²_Σ, so that no single
    context can rule it. Which are left out depends on ŵ alone, hence is the same for all walks.
    With `average="mean"` none is left out; with "median" both averages are medians.
    """
    choose("average", average, AVERAGES)
    size = _norm(weights, contexts)
    kept = torch.ones_like(size)
    if average == "trimmed":
        kept = (size <= size.quantile(1 - TRIMMED, dim=-1, keepdim=True)).to(size)

    def over_contexts(values: Tensor) -> Tensor:
        return values.median(dim=-1).values if average == "median" else (kept * values).sum(-1)

    distances = torch.stack([over_contexts(_norm(weights - u, contexts)) for u in walk])
    return (1 - distances / over_contexts(size)).amax(dim=0)


@cache
def algorithms(task: SparseLinear, depth: int) -> dict[str, LinearPredictor]:
    """What the layers of a model of `depth` layers are compared with, by name, tuned.

    The walks take STEPS steps, at the relative rate that is best for depth − 1 steps: one for
    each layer after the first. The others are end points.
    """
    rates = np.geomspace(0.05, 1.95, 40).tolist()  # relative rates from 2 on diverge
    found = {}
    for name, kind in ALGORITHMS.items():
        best = estimators.tune((kind(depth - 1, rate, relative=True) for rate in rates), task)
        found[name] = kind(STEPS, best.rate, relative=True)
    ends = {"ridge": estimators.tuned_ridge, "lasso": estimators.tuned_lasso}
    ends["Bayes"] = estimators.bayes
    return found | {name: make(task) for name, make in ends.items()}


@dataclass(frozen=True)
class Study:
    """Probes of one architecture's layers, and the walks they are compared with.

    walks: by algorithm, the weights (B, d) after every step; an end point is a walk of one.
    layers: the embedding first.
    """

    contexts: Contexts
    walks: dict[str, list[Tensor]]
    layers: list[Layer]

    @property
    def risks(self) -> Tensor:
        """Excess risk of the probe in every context, (M, L+1, B)."""
        return torch.stack([squared_error(i.weights, self.contexts) for i in self.layers], dim=1)

    def explained(self, average: str = "trimmed") -> dict[str, Tensor]:
        """By algorithm, the fraction (M, L) of every layer's probe that it explains."""
        layers = [layer.weights for layer in self.layers[1:]]
        return {
            name: torch.stack([explained(w, walk, self.contexts, average) for w in layers], dim=1)
            for name, walk in self.walks.items()
        }

    def criteria(self, average: str = "trimmed") -> tuple[Tensor, Tensor, Tensor]:
        """The statistics (M,) that decide claim A5."""
        found = self.explained(average)
        pre, plain = (found[name][:, 1:] for name in ("pre-GD", "GD"))
        readable = self.layers[1].readable[PREPROCESSED]
        return readable, (pre - plain).amin(dim=1), pre.amin(dim=1)


def constructed(task: SparseLinear, depth: int) -> Hidden:
    """`construction` of `depth` layers at the tuned rate: a control whose walk is known."""
    rate = algorithms(task, depth)["pre-GD"].rate
    return partial(construction, PreprocessedGD(depth - 1, rate, relative=True))


def study(hidden: Hidden, depth: int, contexts: Contexts) -> Study:
    """Fit every probe of a model of `depth` layers on stream `tune`, and read on `contexts`."""
    require(depth >= 2, f"depth={depth}: a walk needs a layer after the first")
    fitting = draw(contexts.task, FITTING_CONTEXTS, "tune", FITTING_SEED)
    walks = {}
    for name, predictor in algorithms(contexts.task, depth).items():
        is_walk = isinstance(predictor, GradientDescent)
        walks[name] = [*predictor.iterates(contexts)] if is_walk else [predictor.weights(contexts)]
    return Study(contexts, walks, probe(hidden, fitting, contexts))


def risk_curves(studies: dict[str, Study]) -> dict[str, list[tuple[float, Estimate]]]:
    """Mean excess risk after every layer: of each model's probe, and of the algorithms.

    The studies must share their task, contexts and depth. What preprocesses spends layer 1 on
    it and has taken t steps after layer 1 + t; gradient descent takes a step in every layer. The
    Bayes predictor, a floor for all, stands at the last.
    """
    lines = {}
    for name, found in studies.items():
        lines[name] = list(enumerate(map(estimate, found.risks.unbind(dim=1)[1:]), 1))
        depth = len(lines[name])
    for name, start in {"GD": 1, "pre-GD": 2, "re-weighted GD": 2, "Bayes": depth}.items():
        walk = found.walks[name][: depth + 1 - start]
        reached = (summarise(squared_error(u, found.contexts)) for u in walk)
        lines[name] = list(enumerate(reached, start))
    return lines


def _norm(weights: Tensor, contexts: Contexts) -> Tensor:
    return ((weights @ _sigma(contexts)) * weights).sum(dim=-1)


def _sigma(contexts: Contexts) -> Tensor:
    return torch.from_numpy(contexts.task.sigma)
