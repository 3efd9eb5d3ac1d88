"""Does one trained layer take one step of gradient descent? Over examples, features and noise."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy import optimize
from torch import Tensor

from icl import figures, one_layer, tables
from icl.architecture import QUERIES
from icl.claims import MAHANKALI, Claim, Judged, judge
from icl.contexts import check, draw
from icl.errors import Failed, real, whole
from icl.estimators import ESTIMATORS
from icl.experiments.comparison import AT_OPTIMUM, LEAST_RISK, Layer, Path, rates, watch
from icl.experiments.models import DENSE, single_layer, trained
from icl.intervals import estimate, over_seeds
from icl.one_layer import distance, moments, one_step_risk, optimal_one_step
from icl.predictors import excess_risk
from icl.recipe import MOST_STEPS
from icl.tasks import SparseLinear, Task

LINEAR = {
    f"lsa-d{task.d}-n{task.n}-noise{task.noise:g}": single_layer(task)
    for task in (
        *(replace(DENSE, n=n) for n in (8, 16, 32, 64, 128)),
        *(replace(DENSE, d=d, s=d) for d in (2, 4, 16)),
        *(replace(DENSE, noise=noise) for noise in (0.0, 0.5, 2.0)),
    )
}
SOFTMAX = {f"softmax-{h}": single_layer(DENSE, h, "softmax") for h in (1, 2)}
PLANS = LINEAR | SOFTMAX

B1 = Claim(
    "B1",
    MAHANKALI,
    "A trained layer of linear self-attention takes one step of gradient descent.",
    (AT_OPTIMUM, LEAST_RISK),
)
CLAIMS = (B1,)

BESIDE = "lsa-d8-n32-noise1"  # the linear layer that softmax is compared with
LENGTHS = (8, 16, 32, 64, 128)  # examples per context that layers trained at n = 32 are given
STARTS = 20  # random starts of the search for the optimum
ARRIVED = 1e-6  # a search that ends nearer to Γ* than this has found it


@dataclass(frozen=True)
class Result(Judged):
    """Trained layers with their contexts, by label, and what the page does itself.

    lengths: risks of layers and estimators by the number of examples n.
    task, path: what the layers watched in training are trained on, and their way.
    gaps: (STARTS,) distances to Γ* at which the search from random starts ends.
    """

    layers: dict[str, Layer]
    lengths: pd.DataFrame
    task: SparseLinear
    path: Path
    gaps: Tensor

    def plot_rates(self) -> None:
        """The trained rates against the formula's; first the setting that the others vary."""
        labelled = [(varied(layer[1].task), layer) for layer in self.layers.values()]
        labelled.sort(key=lambda pair: pair[0] != varied(DENSE))
        figures.against(rates(labelled), "rate η of the formula", "rate η of the trained layers")

    def outside(self) -> tables.Text:
        """What training leaves outside the block that theory needs, in the worst of all layers."""
        outside = torch.cat([one_layer.outside_block(model) for model, _ in self.layers.values()])
        rests = torch.cat([rest_share(layer) for layer in self.layers.values()])
        return tables.Text(
            f"Of {len(outside)} layers the worst has {outside.max():.1e} of its $\\Gamma$ from "
            f"outside the block, in norm, and a rest $r$ with {rests.max():.1e} of the mean square "
            "of $\\Gamma b$."
        )

    def plot_path(self) -> None:
        """Distances of Γ to the optimal step and to that of rate 1, in training."""
        task = self.task
        targets = {"to Γ*": optimal_one_step(task), "to I": np.eye(task.d)}
        frame = self.path.curves({k: partial(distance, target=v) for k, v in targets.items()})
        frame["panel"] = f"d = {task.d}, n = {task.n}, noise {task.noise:g}"
        figures.curves(frame, "step", "training step", "relative distance of Γ")

    def starts(self) -> tables.Text:
        """How far from the optimum the worst search ended."""
        return tables.Text(
            f"Largest distance to $\\Gamma^*$ over {len(self.gaps)} starts: "
            f"**{self.gaps.max():.1e}**."
        )

    def plot_lengths(self) -> None:
        """Risks against the number of examples."""
        frame = self.lengths.assign(panel="trained at n = 32")
        figures.curves(frame, "n", "examples n per context", log="xy")

    def ratio(self, label: str, other: str, n: int) -> float:
        """How many times another predictor's risk one's is at n; labels by how they begin."""
        risks = self.lengths[self.lengths["n"] == n].set_index("label")["value"]
        above, below = (risks[risks.index.str.startswith(x)].item() for x in (label, other))
        return above / below

    def numbers(self) -> tables.Text:
        """Rates, distances and risks of all layers."""
        return tables.show(pd.DataFrame(map(line, self.layers, self.layers.values())))


def varied(task: SparseLinear) -> str:
    """In what a task differs from the dense one that the others are variants of."""
    for what in ("n", "d", "noise"):
        if getattr(task, what) != getattr(DENSE, what):
            return f"another {what}"
    return f"n = {DENSE.n}, d = {DENSE.d}, noise {DENSE.noise:g}"


def rest_share(layer: Layer) -> Tensor:
    """Mean square of the rest over that of Γ b, (M,)."""
    model, contexts = layer
    step = contexts.xy @ one_layer.effective_step(model).mT
    rest = one_layer.rest(model, contexts)
    return rest.square().sum(dim=-1).mean(dim=-1) / step.square().sum(dim=-1).mean(dim=-1)


def line(label: str, layer: Layer) -> dict[str, object]:
    """A layer's line in the table of all."""
    model, contexts = layer
    best, gamma = optimal_one_step(contexts.task), one_layer.effective_step(model)
    return {
        "layer": label,
        "η of the formula": f"{best[0, 0]:.3f}",
        "η, trained": over_seeds(one_layer.rate(gamma)),
        "distance to Γ*": over_seeds(distance(gamma, best)),
        "mean square of r over that of Γb": over_seeds(1e4 * rest_share(layer)),
        "excess of the risk": over_seeds(1e4 * one_layer.excess(model, contexts)),
    }


def minimise(task: Task, seed: int) -> np.ndarray:
    """Γ (d, d) of least exact risk that L-BFGS finds over p_y and W_x, from a random start.

    The risk of Γ = p_y W_xᵀ is a polynomial of degree four in the two, and not convex. With
    Σ = L Lᵀ, M = N Nᵀ the search is over W_xᵀ = L⁻ᵀ V N⁻¹: in V all directions count alike,
    and rounding of the risk does not end it early where Σ is far from round.
    """
    d = task.d
    cross, second = moments(task)
    left, right = np.linalg.cholesky(task.sigma), np.linalg.cholesky(second)

    def step(flat: np.ndarray) -> np.ndarray:
        return flat[0] * np.linalg.solve(left.T, flat[1:].reshape(d, d)) @ np.linalg.inv(right)

    def risk(flat: np.ndarray) -> tuple[float, np.ndarray]:
        gamma = step(flat)
        slope = 2 * left.T @ (gamma @ second - cross.T) @ np.linalg.inv(right).T
        return one_step_risk(task, gamma), np.append(slope.ravel() @ flat[1:], flat[0] * slope)

    start = np.random.default_rng(seed).standard_normal(1 + d * d) / d
    options = {"maxiter": 1000, "ftol": 0.0, "gtol": 1e-12}
    return step(optimize.minimize(risk, start, jac=True, method="L-BFGS-B", options=options).x)


def search(task: Task) -> Tensor:
    """Distances (STARTS,) to Γ* at which `minimise` ends; all must have arrived there."""
    ends = torch.from_numpy(np.stack([minimise(task, start) for start in range(STARTS)]))
    gaps = distance(ends, optimal_one_step(task))
    if not gaps.max() < ARRIVED:
        raise Failed(
            f"the search for Γ* from {STARTS} starts: ends at a distance of {gaps.max():.1e}"
        )
    return gaps


def compare_lengths(contexts: int, seed: int) -> pd.DataFrame:
    """Risk by n of layers trained at n = 32, the best single step and ridge."""
    models = trained({BESIDE: LINEAR[BESIDE]} | SOFTMAX).values()
    rows = []
    for n in LENGTHS:
        task = replace(DENSE, n=n)
        asked = draw(task, contexts, "evaluate", seed, queries=QUERIES)
        predictors = {model.label: model.model for model in models}
        predictors |= {name: ESTIMATORS[name].tuned(task) for name in ("one step (Γ*)", "ridge")}
        for label, predictor in predictors.items():
            rows.append({"n": n, "label": label, **vars(estimate(excess_risk(predictor, asked)))})
    return pd.DataFrame(rows)


def run(features: int, examples: int, noise: float, steps: int, contexts: int, seed: int) -> Result:
    """Judge the shipped layers; train others on d, n and noise for so many steps, and watch them.

    Risks are averaged over so many evaluation contexts of this seed.
    """
    check(contexts, seed, 16)
    whole("features", features, 1, 64)
    whole("examples", examples)
    real("noise", noise, "[0, 1000]")
    whole("steps", steps, 100, MOST_STEPS)
    task = replace(DENSE, d=features, s=features, n=examples, noise=noise)
    layers = {
        layer.label: (layer.model, draw(layer.config.task, contexts, "evaluate", seed))
        for layer in trained(LINEAR).values()
    }
    watched = single_layer(task, steps=steps)
    return Result(
        judge(CLAIMS, layers, shared=True),
        layers,
        compare_lengths(contexts // 8, seed),
        task,
        watch(watched.config, watched.seeds),
        search(task),
    )
