"""A transformer that preprocesses, then optimises; and how few heads can preprocess, how well.

A linear-attention head maps a query input x (label 0) to M G N x, where G is the context's
Gram matrix, M = O V is d × (d+1) and N = KᵀQ is (d+1) × d, both of rank d_head at most. With
the residual stream a linear map C x comes for free. The target is diag(r̂) x, so the error of
h heads, relative to writing nothing, is E|Σ_h M_h G N_h + C − diag(r̂)|²_F / E|r̂|².
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from icl import constructions, figures, tables
from icl.architecture import Architecture
from icl.claims import CHEN, Claim, Criterion, Judged, judge
from icl.contexts import Contexts, check, draw, gram_moments
from icl.descent import GradientDescent, PreprocessedGD
from icl.errors import real, require, whole
from icl.intervals import over_seeds
from icl.tasks import SparseLinear
from icl.threads import one_thread
from icl.transformer import LinearTransformer
from icl.words import ERROR

PLANS = {}
# Every algorithm by its name: the transformer that runs it, and itself.
ALGORITHMS = {
    "GD": (constructions.gradient_descent, GradientDescent),
    "Algorithm 1": (constructions.preprocess_then_optimise, PreprocessedGD),
}
FRESH = 4096  # contexts per seed that a layer found by search is judged on
ON_FRESH = "least found, on fresh contexts [95 %]"

A6 = Claim(
    "A6",
    CHEN,
    "A transformer can preprocess with many heads, then optimise with one per layer.",
    (
        Criterion(
            "correct digits of the constructed transformer: −log₁₀ of its largest relative "
            "error against the explicit algorithm, over all layers",
            constructions.correct_digits,
            12.0,
            "Float64 carries 15 to 16 digits; with 12 of them right the two are equal but "
            "for rounding.",
            said="the transformer built by hand differs from the algorithm by a relative "
            "error of {} at most",
            unit=ERROR,
        ),
    ),
)
CLAIMS = (A6,)


def lower_bound(d: int, heads: int, d_head: int) -> float:
    """What no `heads` heads can go below for Gaussian inputs with Σ = I, whatever the n."""
    return 1 - constructions.most_readable(d, heads, d_head)


def paired_error(task: SparseLinear, heads: int) -> float:
    """The error where as many heads as useful serve two features each (Σ = I, d_head ≥ 2).

    Such a head, designed in the chapter, leaves the fraction ρ = τ / (c + τ) of its features'
    energy 2c, with c = E[r̂_j²] and τ² = Var S_21 · Var Syy. It pays if ρ < 1/2.
    """
    require(task.covariance == (), "covariance: the paired heads are derived for Σ = I")
    d = task.d
    whole("heads", heads, 1, d)
    _, covariance = gram_moments(task)
    # Variances of r̂_1, of S_21 where there are two features, and of Syy.
    c, off, yy = (covariance[i, j, i, j].item() for i, j in ((0, d), (0, min(1, d - 1)), (d, d)))
    tau = (off * yy) ** 0.5
    rho = min(tau / (c + tau), 0.5)
    return 1 - min(2 * heads, d) / d + 2 * min(heads, d - heads) / d * rho


def best_layer(
    task: SparseLinear, heads: int, d_head: int, starts: int = 3, seed: int = 0
) -> tuple[LinearTransformer, float]:
    """The first layer of least expected error found from `starts` random starts, and the error.

    Exact moments of G make the error a polynomial of the matrices, which L-BFGS minimises; C is
    eliminated, because the best one cancels the mean. The layer writes to the slots z of
    `constructions`. The task's values must be `signs`, or `sphere` with s of 1 or 2.
    """
    whole("heads", heads)
    whole("starts", starts)
    d, p = task.d, task.d + 1
    mean, covariance = gram_moments(task)
    covariance = covariance.reshape(p * p, p * p)
    target = torch.zeros(d, d, p, p, dtype=torch.float64)
    target[range(d), range(d), d, range(d)] = 1  # r̂_j is entry (y, j) of G
    target = target.reshape(d * d, p * p)
    scale = ((target @ covariance) * target).sum()
    shapes = (heads, d, d_head), (heads, d_head, p), (heads, d_head, p), (heads, d_head, d)

    def error(matrices: list[Tensor]) -> Tensor:
        output, value, key, query = matrices
        total = torch.einsum("hia,hbk->ikab", output @ value, key.mT @ query)
        gap = total.reshape(d * d, p * p) - target
        return ((gap @ covariance) * gap).sum() / scale

    rng, sizes = torch.Generator().manual_seed(seed), [math.prod(shape) for shape in shapes]
    runs = []
    for _ in range(starts):
        parts = (0.5 * torch.randn(sum(sizes), generator=rng, dtype=torch.float64)).split(sizes)
        begin = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        runs.append(_minimise(error, begin))
    best = min(runs, key=error)
    return _layer(best, mean), error(best).item()


def preprocessing_error(model: LinearTransformer, contexts: Contexts) -> float:
    """The error of the first layer's slots z on given contexts, relative to writing nothing."""
    d, (_, states, *_) = contexts.task.d, model.hidden(contexts)
    target = contexts.xy.diag_embed()
    gap = states[0, :, :d, d : 2 * d].mT - target
    return (gap.square().sum() / target.square().sum()).item()


def _minimise(function: Callable[[list[Tensor]], Tensor], start: list[Tensor]) -> list[Tensor]:
    """Where L-BFGS arrives from `start`."""
    found = [x.clone().requires_grad_() for x in start]
    search = torch.optim.LBFGS(
        found, max_iter=400, history_size=20, tolerance_grad=1e-7, tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        search.zero_grad()
        loss = function(found)
        loss.backward()
        return loss

    search.step(closure)
    return [x.detach() for x in found]


def _layer(matrices: list[Tensor], mean: Tensor) -> LinearTransformer:
    """The layer with heads O (H, d, k), V and K (H, k, d+1), Q (H, k, d), and its best C."""
    output, value, key, query = matrices
    heads, d, d_head = output.shape
    model = constructions.blank(Architecture(d, (heads,), d_head, 2 * d + 2))
    read = [*range(d), 2 * d]  # the slots x and y
    block = model.blocks[0]
    block.value.weight[0, read] = value.permute(2, 0, 1)
    block.key.weight[0, read] = key.permute(2, 0, 1)
    block.query.weight[0, :d] = query.permute(2, 0, 1)
    block.output.weight[0, :, :, d : 2 * d] = output.mT
    constant = -(output @ value @ mean @ key.mT @ query).sum(dim=0)
    model.embed.weight[0, :d, d : 2 * d] = constant.T
    return model


def fewer_heads(task: SparseLinear, starts: int, seeds: range) -> pd.DataFrame:
    """For every number of heads up to d the error of the best layer found, and what is derived."""
    d = task.d
    batches = [draw(task, FRESH, "evaluate", seed) for seed in seeds]
    rows = []
    for heads in range(1, d + 1):
        layer, least = best_layer(task, heads, d, starts)
        fresh = torch.tensor([preprocessing_error(layer, batch) for batch in batches])
        derived = paired_error(task, heads), lower_bound(d, heads, 1)
        rows.append([task.n, heads, lower_bound(d, heads, d), least, *derived, over_seeds(fresh)])
    header = ["n", "heads", "bound", "least found", "paired heads", "one feature per head"]
    return pd.DataFrame(rows, columns=[*header, ON_FRESH])


@dataclass(frozen=True)
class Result(Judged):
    """What was found of constructions and of first layers with fewer heads.

    errors: (M, 2, L) by algorithm and setting, from `layer_errors`, M seeds of contexts.
    layers: a row per number of examples and of heads.
    """

    errors: dict[tuple[str, str], Tensor]
    layers: pd.DataFrame

    @property
    def finding(self) -> tables.Text:
        """The verdict in a sentence, and what half as many heads as features do."""
        d = self.layers.heads.max()
        half = (d + 1) // 2
        there = self.layers[self.layers.heads == half]
        reached = " and ".join(f"{row[ON_FRESH]} at n = {row.n}" for _, row in there.iterrows())
        return tables.Text(
            f"{super().finding}\n\n"
            f"**Fewer heads than features.** With {half} heads for {d} features the best first "
            f"layer found has an error of {reached}, relative to writing nothing; one feature per "
            f"head would leave {1 - half / d:.3f}."
        )

    def plot_layers(self) -> None:
        """The least error found, between the bounds."""
        found = self.layers.assign(panel="", label=[f"found, n = {n}" for n in self.layers.n])
        found = found.join(pd.DataFrame(map(vars, found[ON_FRESH])))
        once = found.drop_duplicates("heads")
        bounds = [
            once.assign(label=label, value=once[name], low=once[name], high=once[name])
            for label, name in (("1 − h/d", "one feature per head"), ("1 − 2h/d", "bound"))
        ]
        labels = "heads in the first layer", "relative error of preprocessing"
        figures.curves(pd.concat([found, *bounds]), "heads", *labels, log="")

    def numbers(self) -> tables.Text:
        """All errors of first layers."""
        return tables.show(self.layers.map(lambda x: f"{x:.4f}" if isinstance(x, float) else x))

    def plot_digits(self) -> None:
        """Correct digits of the constructions after every layer."""
        rows = [
            {"panel": algorithm, "label": setting, "layer": layer}
            | vars(over_seeds(constructions.correct_digits(found[..., layer - 1 : layer])))
            for (algorithm, setting), found in self.errors.items()
            for layer in range(1, found.shape[-1] + 1)
        ]
        figures.curves(pd.DataFrame(rows), "layer", "after layer", "correct digits", "", (0, 17))


@one_thread()
def run(features: int, steps: int, rate: float, contexts: int, starts: int, seed: int) -> Result:
    """Compare constructions with their algorithms, and search for first layers of fewer heads."""
    whole("features", features, 2, 32)
    whole("steps", steps, 1, 100)
    real("rate", rate, "(0, 10]")
    check(contexts, seed, 1)
    whole("starts", starts, 1, 1000)
    seeds = range(seed, seed + 5)
    mixing = np.random.default_rng(0).standard_normal((features, features))
    full = 0.5 * np.eye(features) + mixing @ mixing.T / features
    covariances = {"identity": (), "diagonal": np.linspace(0.5, 2, features), "full": full}
    errors = {}
    sizes = max(1, features // 2), 16 * features
    for (algorithm, (built, explicit)), sigma, n in product(ALGORITHMS.items(), covariances, sizes):
        task = SparseLinear(d=features, n=n, values="sphere", covariance=covariances[sigma])
        model, reference = built(features, steps, rate), explicit(steps, rate)
        batches = (draw(task, contexts, "evaluate", s, queries=1) for s in seeds)
        found = [constructions.layer_errors(model, reference, batch) for batch in batches]
        errors[algorithm, f"{sigma} Σ, n = {n}"] = torch.stack(found)
    tasks = [SparseLinear(d=features, n=k * features, values="sphere") for k in (4, 128)]
    layers = pd.concat([fewer_heads(task, starts, seeds) for task in tasks], ignore_index=True)
    measured = {f"{algorithm}, {setting}": e for (algorithm, setting), e in errors.items()}
    return Result(judge(CLAIMS, measured), errors, layers)
