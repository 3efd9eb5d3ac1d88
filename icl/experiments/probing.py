"""What do the layers compute? Probes of every layer, and the algorithms that they resemble."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np
import pandas as pd
import seaborn as sns
import torch
from torch import Tensor

from icl import figures, tables
from icl.claims import CHEN, Claim, Criterion, Verdict, finding
from icl.contexts import Contexts, draw
from icl.descent import GradientDescent, PreprocessedGD, ReweightedGD
from icl.errors import choose, require
from icl.estimators import ESTIMATORS, tune
from icl.experiments.comparison import REFERENCES
from icl.experiments.models import FIRST, FULL, SINGLE_HEAD, trained
from icl.intervals import AVERAGES, estimate, over_seeds
from icl.predictors import LinearPredictor, excess_risk, squared_error
from icl.probing import fit, r_squared, read, scales, states
from icl.tasks import Task

PLANS = FULL | {"heads-1-3": SINGLE_HEAD["heads-1-3"]} | FIRST
# What walks, by its label in ESTIMATORS; the references are end points.
WALKS = {"GD": GradientDescent, "preprocessed GD": PreprocessedGD, "re-weighted GD": ReweightedGD}
STEPS, RATES = 20, np.geomspace(0.05, 1.95, 40).tolist()  # relative rates from 2 on diverge


# Averages over contexts, and the share of them, those with the least weights, that each is over.
SHARES = {"trimmed": (torch.mean, 0.99), "mean": (torch.mean, 1.0)}
SHARES |= {"median": (AVERAGES["median"], 1.0)}


def construction(walk: PreprocessedGD, depth: int, contexts: Contexts) -> Iterator[Tensor]:
    """What Chen et al. (2024) describe, as hidden states like those of `states`, M = 1.

    A token is (x, r̂ ∘ x, <u, x>): layer 1 writes the second part, layer 1 + t step t of `walk`.
    """
    none, scaled = torch.zeros_like(contexts.xy), torch.diag_embed(contexts.xy)
    inputs = torch.eye(contexts.task.d).expand_as(scaled)
    yield torch.cat([inputs, 0 * scaled, none[..., None]], dim=-1)[None]
    for u in (none, *list(walk.iterates(contexts))[: depth - 1]):
        yield torch.cat([inputs, scaled, u[..., None]], dim=-1)[None]


@dataclass(frozen=True)
class Study:
    """Probes of every layer of one architecture, and what they are compared with.

    walks: by label, the weights (B, d) after every step; an end point is a walk of one.
    weights: (M, L+1, B, d) of the probes for the answer.
    readable: by the name of a scale c, R² (M, L+1) of reading c_j x_qj.
    """

    contexts: Contexts
    depth: int
    walks: dict[str, list[Tensor]]
    weights: Tensor
    readable: dict[str, Tensor]

    @property
    def risks(self) -> Tensor:
        """Excess risk of the probes in every context, (M, L+1, B)."""
        return squared_error(self.weights, self.contexts)

    def explained(self, label: str, average: str = "trimmed") -> Tensor:
        """Fraction (M, L+1) of the probes' weights that the nearest step u of a walk explains.

        The largest 1 − E|ŵ − u|²_Σ / E|ŵ|²_Σ, where E is one of the averages in SHARES.
        """
        over_contexts, share = SHARES[choose("average", average, SHARES)]
        steps = (torch.zeros_like(self.contexts.w), *self.walks[label])
        away = [squared_error(self.weights, replace(self.contexts, w=u)) for u in steps]
        kept = away[0] <= away[0].quantile(share, dim=-1, keepdim=True)
        size, *distances = over_contexts(kept * torch.stack(away), dim=-1)
        return (1 - torch.stack(distances) / size).amax(dim=0)

    def preprocessing(self) -> Tensor:
        """R² (M,) of reading the preprocessed query after layer 1."""
        return self.readable["r̂"][:, 1]

    def lead(self, average: str = "trimmed") -> Tensor:
        """What preprocessed GD explains more than GD, (M,), in the later layer with the least."""
        more = self.explained("preprocessed GD", average) - self.explained("GD", average)
        return more[:, 2:].amin(dim=1)

    def fraction(self, average: str = "trimmed") -> Tensor:
        """What preprocessed GD explains, (M,), in the later layer with the least."""
        return self.explained("preprocessed GD", average)[:, 2:].amin(dim=1)


A5 = Claim(
    "A5",
    CHEN,
    "The first layer preprocesses, and later layers walk like gradient descent on what it leaves.",
    (
        Criterion(
            "R² of a linear read-out of the preprocessed query after layer 1",
            Study.preprocessing,
            0.5,
            "A first layer that preprocesses must let r̂_j x_j be read off. A layer of h heads "
            "whose values read labels only, as in the paper's construction, can reach h/d; above "
            "one half it does more than half of what that construction does.",
        ),
        Criterion(
            "fraction of the probe's weights that preprocessed gradient descent explains, minus "
            "the fraction gradient descent explains, in the later layer where it is smallest",
            Study.lead,
            0.0,
            "Above zero, every later layer is nearer to the preprocessed walk.",
        ),
        Criterion(
            "fraction of the probe's weights that preprocessed gradient descent explains, in the "
            "later layer where it is smallest",
            Study.fraction,
            0.9,
            "To walk like it, and not only more like it than like something "
            "else, less than a tenth may be left unexplained.",
        ),
    ),
)
CLAIMS = (A5,)


@cache
def algorithm(label: str, task: Task, depth: int) -> LinearPredictor:
    """What a model of `depth` layers is compared with; walks have the best rate for its steps."""
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
    fitting = draw(task, 2048, "tune", seed=1)  # rates and penalties are tuned on seed 0
    for seen, new in zip(hidden(fitting), hidden(contexts), strict=True):
        answer = fit(seen, fitting.w[..., None], fitting)
        fitted, weights = (read(x, answer)[..., 0] for x in (seen, new))
        wanted = [torch.diag_embed(c.expand_as(fitted)) for c in scales(fitting, fitted).values()]
        products = read(new, fit(seen, torch.cat(wanted, dim=-1), fitting))
        truth = scales(contexts, weights)
        pairs = zip(products.split(task.d, dim=-1), truth.values(), strict=True)
        layers.append((weights, *(r_squared(*pair, contexts) for pair in pairs)))
    weights, *readable = (torch.stack(found, dim=1) for found in zip(*layers, strict=True))
    return Study(contexts, depth, walks, weights, dict(zip(truth, readable, strict=True)))


def over_models(values: Tensor) -> str:
    """The estimate over seeds (M,) of a fraction, or the one value that there is."""
    one = f"{values[0].item():.3f}".replace("-", "\N{MINUS SIGN}")
    return str(over_seeds(values).within(high=1.0)) if len(values) > 1 else one


@dataclass(frozen=True)
class Result:
    """By label: studies of models and of the construction, and the risk (M, B) of the models."""

    verdict: Verdict
    studies: dict[str, Study]
    own: dict[str, Tensor]

    @property
    def finding(self) -> tables.Text:
        """The verdict in a sentence."""
        return finding([self.verdict])

    def plot_risks(self) -> None:
        """Mean excess risk after every layer; algorithms that preprocess spend layer 1 on it."""
        lines = {}
        for label, study in zip(self.own, self.studies.values(), strict=False):
            task, depth = study.contexts.task, study.depth
            panel = f"d = {task.d}, n = {task.n}, {depth} layers"
            for name, first in zip((*WALKS, "Bayes"), (1, 2, 2, depth), strict=True):
                walk = study.walks[name][: depth + 1 - first]
                lines[panel, name] = first, [squared_error(u, study.contexts) for u in walk]
            lines[panel, label.removesuffix(f", d = {task.d}")] = 1, study.risks.unbind(dim=1)[1:]
        rows = [
            {"panel": panel, "label": label, "layer": layer, **vars(estimate(risks))}
            for (panel, label), (first, line) in lines.items()
            for layer, risks in enumerate(line, first)
        ]
        figures.curves(pd.DataFrame(rows), "layer", "layer")

    def plot_nearest(self) -> None:
        """Heat-map of the share of every layer's probe that algorithms leave unexplained, in %."""
        depths = [study.depth for study in self.studies.values()]
        _, axes = figures.subplots(len(depths), figsize=(figures.WIDTH, 11), height_ratios=depths)
        look = {"vmin": np.log(0.5), "vmax": np.log(50), "cmap": "rocket", "cbar": False}
        for ax, (label, study) in zip(axes, self.studies.items(), strict=True):
            found = {n.replace(" ", "\n"): study.explained(n).mean(dim=0) for n in study.walks}
            left = 100 * (1 - pd.DataFrame(found).iloc[1:].rename("layer {}".format))
            sns.heatmap(np.log(left), ax=ax, annot=left, fmt=".1f", **look)
            ax.set_title(label, loc="left", fontsize=11)
            ax.tick_params(length=0, labelsize=9, labelbottom=False, labeltop=ax is axes[0])

    def risks(self) -> tables.Text:
        """Risk of the probe after every layer, and of the model's own read-out."""
        rows = []
        for (label, own), study in zip(self.own.items(), self.studies.values(), strict=False):
            found = {f"layer {i}": study.risks[:, i] for i in range(1, study.depth + 1)}
            for place, x in (found | {"its own read-out": own}).items():
                rows.append([label, place, estimate(x), f"{x.median(dim=-1).values.mean():.3f}"])
        return tables.table(["model", "read after", "excess risk [95 %]", "median"], rows)

    def readable(self) -> tables.Text:
        """R² of reading c_j x_qj after every layer, for every scale c."""
        rows = [
            [label, layer, *(over_models(found[:, layer]) for found in study.readable.values())]
            for label, study in self.studies.items()
            for layer in range(1, study.depth + 1)
        ]
        return tables.table(["model", "layer", *self.studies["construction"].readable], rows)

    def averages(self) -> tables.Text:
        """The two fractions that decide claim A5, for every way to average over contexts."""
        rows = [
            [label, *map(over_models, [*map(study.lead, SHARES), *map(study.fraction, SHARES)])]
            for label, study in self.studies.items()
        ]
        header = [f"{what}, {way}" for what in ("lead over GD", "explained") for way in SHARES]
        return tables.table(["model", *header], rows)


def run(contexts: int, seed: int) -> Result:
    """Probe all models on so many evaluation contexts of this seed."""
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    studies, own = {}, {}
    models = trained(PLANS).values()
    for found in models:
        batch, depth = draw(found.config.task, contexts, "evaluate", seed), len(found.model.blocks)
        studies[found.label] = study(partial(states, found.model), depth, batch)
        own[found.label] = excess_risk(found.model, batch)
    # No more than 2h/d of the preprocessed query can be read off after h heads.
    able = {
        found.label: studies[found.label]
        for found in models
        if 2 * found.config.architecture.heads[0] / found.config.task.d > A5.criteria[0].threshold
    }
    verdict, one = A5.judge(able), next(iter(studies.values()))
    walk = algorithm("preprocessed GD", one.contexts.task, one.depth)
    control = study(partial(construction, walk, one.depth), one.depth, one.contexts)
    return Result(verdict, studies | {"construction": control}, own)
