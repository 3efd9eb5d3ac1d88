"""What do the layers compute? Probes of every layer, and the algorithms that they resemble."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib.colors import LogNorm
from torch import Tensor

from icl import figures, tables
from icl.claims import CHEN, Claim, Criterion, Judged, judge
from icl.contexts import Contexts, check, draw
from icl.descent import PreprocessedGD
from icl.errors import require
from icl.experiments.comparison import PLAIN, PREPROCESSED, REFERENCES, WALKS, algorithm
from icl.experiments.models import FIRST, FULL, SINGLE_HEAD, trained
from icl.intervals import estimate, over_seeds
from icl.predictors import excess_risk, squared_error
from icl.probing import SHARES, Study, explained, fit, misread, r_squared, read, scales, states
from icl.words import PERCENT

PLANS = FULL | {"heads-1-3": SINGLE_HEAD["heads-1-3"]} | FIRST


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
class Evidence:
    """What decides claim A5 in one architecture, context by context, in squared label units.

    first: (M, 2, B) what a read-out of r̂ ∘ x_q misses after layer 1, and what there is to read.
    size: (M, L−1, B) |ŵ|²_Σ of the probes after every later layer.
    plain, preprocessed: (M, L−1, B) |ŵ − u|²_Σ to the nearest step u of either walk.
    """

    first: Tensor
    size: Tensor
    plain: Tensor
    preprocessed: Tensor

    def preprocessing(self) -> Tensor:
        """R² (M,) of reading the preprocessed query after layer 1."""
        return r_squared(self.first)

    def lead(self) -> dict[str, Tensor]:
        """What preprocessed GD explains more than GD, (M,), by later layer."""
        return _later(self._fraction(self.preprocessed) - self._fraction(self.plain))

    def fraction(self) -> dict[str, Tensor]:
        """What preprocessed GD explains, (M,), by later layer."""
        return _later(self._fraction(self.preprocessed))

    def _fraction(self, away: Tensor) -> Tensor:
        return explained(away, self.size)


def evidence(study: Study) -> Evidence:
    """What decides claim A5, taken from the probes of a model."""
    found = study.size, study.nearest(PLAIN), study.nearest(PREPROCESSED)
    return Evidence(study.readable["r̂"][:, 1], *(later[:, 2:] for later in found))


def _later(values: Tensor) -> dict[str, Tensor]:
    """Columns (M,) of what later layers have, (M, L−1)."""
    return {f"layer {i}": column for i, column in enumerate(values.unbind(dim=1), 2)}


A5 = Claim(
    "A5",
    CHEN,
    "The first layer preprocesses, and later layers walk like gradient descent on what it leaves.",
    (
        Criterion(
            "R² of a linear read-out of the preprocessed query after layer 1",
            Evidence.preprocessing,
            0.5,
            "A first layer that preprocesses must let r̂_j x_j be read off. A layer of h heads "
            "whose values read labels only, as in the paper's construction, can reach h/d; above "
            "one half it does more than half of what that construction does.",
            (-np.inf, 1.0),
            said="a linear read-out after layer 1 explains {} of the preprocessed query",
            unit=PERCENT,
        ),
        Criterion(
            "fraction of the probe's weights that preprocessed gradient descent explains, minus "
            "the fraction gradient descent explains, after every later layer",
            Evidence.lead,
            0.0,
            "Above zero, the layer is nearer to the preprocessed walk. The layers are judged one "
            "by one; their intervals are so wide that all hold at once with 95 %.",
            said="preprocessed gradient descent explains more of a later answer than plain by {}",
            unit=PERCENT,
        ),
        Criterion(
            "fraction of the probe's weights that preprocessed gradient descent explains after "
            "every later layer",
            Evidence.fraction,
            0.9,
            "To walk like it, and not only more like it than like something else, less than a "
            "tenth may be left unexplained. The layers are judged as before.",
            (-np.inf, 1.0),
            said="of the answers after a later layer, preprocessed gradient descent explains {}",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = (A5,)


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
        layers.append((weights, *(misread(*pair, contexts) for pair in pairs)))
    weights, *readable = (torch.stack(found, dim=1) for found in zip(*layers, strict=True))
    return Study(contexts, depth, walks, weights, dict(zip(truth, readable, strict=True)))


def over_models(values: Tensor) -> str:
    """The estimate over seeds (M,) of a fraction, or the one value that there is."""
    one = f"{values[0].item():.3f}".replace("-", "\N{MINUS SIGN}")
    return str(over_seeds(values).within(high=1.0)) if len(values) > 1 else one


@dataclass(frozen=True)
class Result(Judged):
    """By label: studies of models and of the construction, and the risk (M, B) of the models."""

    studies: dict[str, Study]
    own: dict[str, Tensor]

    def plot_risks(self) -> None:
        """Trimmed mean risk after every layer; algorithms that preprocess spend layer 1 on it."""
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
        heights = [study.depth + 0.9 for study in self.studies.values()]
        size = {"figsize": (figures.WIDTH, 0.34 * sum(heights) + 1), "height_ratios": heights}
        _, axes = figures.subplots(len(heights), **size)
        for ax, (label, study) in zip(axes, self.studies.items(), strict=True):
            found = {name: study.explained(name).mean(dim=0) for name in study.walks}
            left = 100 * (1 - pd.DataFrame(found).iloc[1:].rename("layer {}".format))
            figures.heat_map(ax, left, LogNorm(0.5, 50), figures.SHARES.reversed(), fmt=".1f")
            ax.set_title(label)
            ax.tick_params("x", labelbottom=False, labeltop=ax is axes[0], labelrotation=90)

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
            [label, layer, *(over_models(r_squared(x[:, layer])) for x in study.readable.values())]
            for label, study in self.studies.items()
            for layer in range(1, study.depth + 1)
        ]
        return tables.table(["model", "layer", *self.studies["construction"].readable], rows)

    def averages(self) -> tables.Text:
        """The fractions that decide claim A5 layer by layer, by the average over contexts."""
        rows = []
        for label, study in self.studies.items():
            plain, ours = (
                torch.stack([study.explained(walk, way) for way in SHARES])
                for walk in (PLAIN, PREPROCESSED)
            )
            values = torch.cat([ours - plain, ours])
            for layer in range(2, study.depth + 1):
                rows.append([label, layer, *map(over_models, values[..., layer])])
        header = [f"{what}, {way}" for what in ("lead over GD", "explained") for way in SHARES]
        return tables.table(["model", "layer", *header], rows)


def run(contexts: int, seed: int) -> Result:
    """Probe all models on so many evaluation contexts of this seed."""
    check(contexts, seed)
    studies, own = {}, {}
    models = trained(PLANS).values()
    for found in models:
        batch, depth = draw(found.config.task, contexts, "evaluate", seed), len(found.model.blocks)
        studies[found.label] = study(partial(states, found.model), depth, batch)
        own[found.label] = excess_risk(found.model, batch)
    # No more than 2h/d of the preprocessed query can be read off after h heads.
    able = {
        found.label: evidence(studies[found.label])
        for found in models
        if 2 * found.config.architecture.heads[0] / found.config.task.d > A5.criteria[0].threshold
    }
    verdicts, one = judge(CLAIMS, able, shared=True), next(iter(studies.values()))
    walk = algorithm(PREPROCESSED, one.contexts.task, one.depth)
    control = study(partial(construction, walk, one.depth), one.depth, one.contexts)
    return Result(verdicts, studies | {"construction": control}, own)
