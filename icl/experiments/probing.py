"""What do the layers compute? Probes of every layer, and the algorithms that they resemble."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import islice

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.colors import LogNorm
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Criterion, Verdict, finding
from icl.contexts import Contexts, draw
from icl.descent import GradientDescent, PreprocessedGD, ReweightedGD
from icl.errors import choose, require
from icl.estimators import ESTIMATORS, tune
from icl.experiments.comparison import REFERENCES
from icl.experiments.models import FIRST, FULL, SINGLE_HEAD, trained
from icl.intervals import AVERAGES, estimate, over_seeds
from icl.predictors import LinearPredictor, excess_risk, squared_error
from icl.probing import fit, read, states
from icl.tasks import Task

PLANS = FULL | {"heads-1-3": SINGLE_HEAD["heads-1-3"]} | FIRST
FITTING = {"batch": 2048, "stream": "tune", "seed": 1}  # rates are tuned on seed 0
# What walks, by its label in ESTIMATORS; the references are end points.
WALKS = {"GD": GradientDescent, "preprocessed GD": PreprocessedGD, "re-weighted GD": ReweightedGD}
RATES = np.geomspace(0.05, 1.95, 40).tolist()  # relative rates from 2 on diverge
STEPS = 20  # how far a walk is followed
WAYS = ("trimmed", *AVERAGES)  # to average over contexts
TRIMMED = 0.01  # share of contexts, those with the largest weights, that a trimmed mean leaves out


def construction(walk: PreprocessedGD, depth: int, contexts: Contexts) -> Iterator[Tensor]:
    """What Chen et al. (2024) describe, as hidden states like those of `states`, M = 1.

    A token is (x, r̂ ∘ x, <u_t, x>): layer 1 writes the second part, layer 1 + t puts the
    weights u_t of `walk` after t steps in the third.
    """
    none, scaled = torch.zeros_like(contexts.xy), torch.diag_embed(contexts.xy)
    inputs = torch.eye(contexts.task.d).expand_as(scaled)
    yield torch.cat([inputs, 0 * scaled, none[..., None]], dim=-1)[None]
    for u in (none, *islice(walk.iterates(contexts), depth - 1)):
        yield torch.cat([inputs, scaled, u[..., None]], dim=-1)[None]


def scales(contexts: Contexts, weights: Tensor) -> dict[str, Tensor]:
    """Scales c, (..., B, d), that an algorithm at `weights` could give the features, by name.

    r̂ is the preprocessing of the first layer; ŵ + ĝ, the weights and the correlations they
    leave, is that of `ReweightedGD`. What is new in it is its part orthogonal to r̂ in every
    context: the rest is r̂ times a number, which takes no other preprocessing than the first.
    """
    r = contexts.xy
    again = weights + (r - torch.einsum("...ij,...j->...i", contexts.xx, weights))
    along = (again * r).sum(-1, keepdim=True) / r.square().sum(-1, keepdim=True)
    return {"r̂": r, "ŵ": weights, "ŵ + ĝ": again, "new in ŵ + ĝ": again - along * r}


def r_squared(products: Tensor, scale: Tensor, contexts: Contexts) -> Tensor:
    """R² (M,) of `products` (M, B, d, d), whose column j was read for c_j x_j; mean over j."""
    sigma = torch.from_numpy(contexts.task.sigma)
    error = products - torch.diag_embed(scale)
    missed = torch.einsum("mbij,ik,mbkj->mj", error, sigma, error)
    return (1 - missed / (scale.square().sum(dim=-2) * sigma.diagonal())).mean(dim=-1)


@dataclass(frozen=True)
class Study:
    """Probes of one architecture's layers, read on `contexts`, and what they are compared with.

    walks: by label, the weights (B, d) after every step; an end point is a walk of one.
    weights: (M, L+1, B, d) of the probes for the answer; risks: (M, L+1, B) of them.
    readable: by the name of a scale c, R² (M, L+1) of reading c_j x_qj.
    """

    contexts: Contexts
    walks: dict[str, list[Tensor]]
    weights: Tensor
    readable: dict[str, Tensor]

    @property
    def risks(self) -> Tensor:
        return squared_error(self.weights, self.contexts)

    @property
    def depth(self) -> int:
        return self.weights.shape[1] - 1

    def explained(self, label: str, average: str = "trimmed") -> Tensor:
        """Fraction (M, L+1) of the probes' weights that the nearest step of a walk explains.

        The largest value, over its steps u, of 1 − E|ŵ − u|²_Σ / E|ŵ|²_Σ. E is the mean over
        all contexts but the hundredth with the largest |ŵ|²_Σ, so that no single one can rule
        it; with "mean" none is left out, with "median" both averages are medians.
        """
        over_contexts = AVERAGES.get(choose("average", average, WAYS), torch.mean)
        targets = (torch.zeros_like(self.contexts.w), *self.walks[label])
        away = [squared_error(self.weights, replace(self.contexts, w=u)) for u in targets]
        share = 1 - TRIMMED if average == "trimmed" else 1.0
        kept = away[0] <= away[0].quantile(share, dim=-1, keepdim=True)
        size, *distances = over_contexts(kept * torch.stack(away), dim=-1)
        return (1 - torch.stack(distances) / size).amax(dim=0)


@cache
def algorithm(label: str, task: Task, depth: int) -> LinearPredictor:
    """What the layers of a model of `depth` layers are compared with, tuned.

    Walks have the relative rate that is best for one step in each layer after the first.
    """
    if label in REFERENCES:
        return ESTIMATORS[label].tuned(task)
    kind = partial(WALKS[label], relative=True)
    return kind(STEPS, tune((kind(depth - 1, rate) for rate in RATES), task).rate)


def study(hidden: Callable[[Contexts], Iterator], depth: int, contexts: Contexts) -> Study:
    """Fit every probe of a model of `depth` layers on stream `tune`, and read on `contexts`."""
    require(depth >= 2, f"depth={depth}: a walk needs a layer after the first")
    task, layers = contexts.task, []
    walks = {label: [*algorithm(label, task, depth).iterates(contexts)] for label in WALKS}
    walks |= {label: [algorithm(label, task, depth).weights(contexts)] for label in REFERENCES}
    fitting = draw(task, **FITTING)
    for seen, new in zip(hidden(fitting), hidden(contexts), strict=True):
        answer = fit(seen, fitting.w[..., None], fitting)
        fitted, weights = (read(x, answer)[..., 0] for x in (seen, new))
        wanted = [torch.diag_embed(c.expand_as(fitted)) for c in scales(fitting, fitted).values()]
        products = read(new, fit(seen, torch.cat(wanted, dim=-1), fitting))
        truth = scales(contexts, weights)
        pairs = zip(products.split(task.d, dim=-1), truth.values(), strict=True)
        layers.append((weights, *(r_squared(*pair, contexts) for pair in pairs)))
    weights, *readable = (torch.stack(found, dim=1) for found in zip(*layers, strict=True))
    return Study(contexts, walks, weights, dict(zip(truth, readable, strict=True)))


def preprocessing(study: Study) -> Tensor:
    """R² (M,) of reading the preprocessed query after layer 1."""
    return study.readable["r̂"][:, 1]


def lead(study: Study, average: str = "trimmed") -> Tensor:
    """What preprocessed GD explains more than GD, (M,), in the later layer where it is least."""
    found = study.explained("preprocessed GD", average) - study.explained("GD", average)
    return found[:, 2:].amin(dim=1)


def fraction(study: Study, average: str = "trimmed") -> Tensor:
    """What preprocessed GD explains, (M,), in the later layer where it is least."""
    return study.explained("preprocessed GD", average)[:, 2:].amin(dim=1)


A5 = Claim(
    "A5",
    CHEN,
    "The first layer preprocesses, and later layers walk like gradient descent on what it leaves.",
    (
        Criterion(
            "R² of a linear read-out of the preprocessed query after layer 1", preprocessing, 0.5,
            "A first layer that preprocesses must let r̂_j x_j be read off. A layer of h heads "
            "whose values read labels only, as in the paper's construction, can reach h/d; above "
            "one half it does more than half of what that construction does.",
        ),
        Criterion(
            "fraction of the probe's weights that preprocessed gradient descent explains, minus "
            "the fraction gradient descent explains, in the later layer where it is smallest",
            lead, 0.0, "Above zero, every later layer is nearer to the preprocessed walk.",
        ),
        Criterion(
            "fraction of the probe's weights that preprocessed gradient descent explains, in the "
            "later layer where it is smallest", fraction, 0.9,
            "To walk like it, and not only more like it than like something else, less than a "
            "tenth may be left unexplained.",
        ),
    ),
)  # fmt: skip
CLAIMS = (A5,)


@dataclass(frozen=True)
class Result:
    """The verdict, the models, and the studies of them and of the construction, by label."""

    verdict: Verdict
    models: dict[str, Checkpoint]
    studies: dict[str, Study]

    @property
    def finding(self) -> tables.Text:
        return finding([self.verdict])

    def plot_risks(self) -> None:
        """Mean excess risk of the probe after every layer, and of the algorithms.

        What preprocesses spends layer 1 on it; gradient descent takes a step in every layer. The
        Bayes predictor, a floor for all, stands at the last.
        """
        lines = {}
        for label in self.models:
            study = self.studies[label]
            panel = f"d = {study.contexts.task.d}, n = {study.contexts.task.n}, {study.depth} layers"
            lines[panel, label] = 1, study.risks[:, 1:].unbind(dim=1)
            starts = {"GD": 1, "preprocessed GD": 2, "re-weighted GD": 2, "Bayes": study.depth}
            for name, start in starts.items():
                walk = study.walks[name][: study.depth + 1 - start]
                lines[panel, name] = start, [squared_error(u, study.contexts) for u in walk]
        rows = [
            {"panel": panel, "label": label, "layer": layer, **vars(estimate(risks))}
            for (panel, label), (start, line) in lines.items()
            for layer, risks in enumerate(line, start)
        ]
        figures.curves(pd.DataFrame(rows), "layer", "layer")

    def plot_nearest(self) -> None:
        """Heat-map of the share of every layer's probe that algorithms leave unexplained, in %."""
        depths = [study.depth for study in self.studies.values()]
        size = (figures.WIDTH, 0.7 + sum(0.34 * depth + 0.35 for depth in depths))
        _, axes = figures.subplots(len(depths), 1, figsize=size, height_ratios=depths)
        for ax, (label, study) in zip(axes, self.studies.items(), strict=True):
            found = {name.replace(" ", "\n"): study.explained(name)[:, 1:] for name in study.walks}
            left = pd.DataFrame({name: 100 * (1 - x.mean(dim=0).numpy()) for name, x in found.items()})
            left.index = [f"layer {layer + 1}" for layer in left.index]
            look = {"cmap": "rocket", "annot": True, "fmt": ".1f", "annot_kws": {"size": 10}}
            sns.heatmap(left, ax=ax, norm=LogNorm(0.5, 50), cbar=False, **look)
            ax.set_title(label, loc="left", fontsize=11)
            ax.tick_params(length=0, labelsize=10, labelbottom=False, labeltop=ax is axes[0])

    def risks(self) -> tables.Text:
        """Risk of the probe after every layer, and of the model's own read-out."""
        rows = []
        for label, checkpoint in self.models.items():
            *layers, _ = risks = [*self.studies[label].risks.unbind(dim=1)[1:], own]
            for place, risks in places.items():
                median = f"{risks.median(dim=-1).values.mean():.3f}"
                rows.append([label, place, estimate(risks), median])
        return tables.table(["model", "read after", "mean excess risk [95 %]", "median"], rows)

    def readable(self) -> tables.Text:
        """R² of reading c_j x_qj after every layer, for every scale c."""
        rows = [
            {"model": label, "layer": layer}
            | {name: over_models(found[:, layer]) for name, found in study.readable.items()}
            for label, study in self.studies.items()
            for layer in range(1, study.depth + 1)
        ]
        return tables.show(pd.DataFrame(rows))

    def averages(self) -> tables.Text:
        """The two fractions that decide claim A5, for every way to average over contexts."""
        rows = [
            {"model": label}
            | {f"lead over GD, {way}": over_models(lead(study, way)) for way in WAYS}
            | {f"explained, {way}": over_models(fraction(study, way)) for way in WAYS}
            for label, study in self.studies.items()
        ]
        return tables.show(pd.DataFrame(rows))


def over_models(values: Tensor) -> str:
    """The estimate over seeds (M,), or the one value that there is."""
    return str(over_seeds(values)) if len(values) > 1 else f"{values.item():.3f}"


def run(contexts: int, seed: int) -> Result:
    """Probe all models on so many evaluation contexts of this seed."""
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    models = {model.label: model for model in trained(PLANS).values()}
    studies = {}
    for label, model in models.items():
        task, depth = model.config.task, len(model.config.architecture.heads)
        batch = draw(task, contexts, "evaluate", seed)
        studies[label] = study(partial(states, model.model), depth, batch)
    first = next(iter(studies.values()))
    walk = algorithm("preprocessed GD", first.contexts.task, first.depth)
    control = study(partial(construction, walk, first.depth), first.depth, first.contexts)
    return Result(A5.judge(studies), models, studies | {"construction": control})
