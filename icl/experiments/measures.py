"""What several experiments measure of models with many heads: their heads, and their answers."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import wraps
from textwrap import fill
from typing import NamedTuple

import pandas as pd
import torch
from matplotlib.colors import Normalize
from torch import Tensor

from icl import figures, tables
from icl.claims import Criterion, Judged
from icl.contexts import Contexts
from icl.estimators import ESTIMATORS
from icl.experiments.comparison import Comparison
from icl.heads import Importance, contrast, importance, least_first, top_later
from icl.intervals import (
    Estimate,
    estimate,
    geometric,
    over_contexts,
    over_seeds,
    reduction,
    trimmed,
)
from icl.predictors import LinearPredictor, Predictor, excess_risk, squared_error
from icl.probing import implied_weights
from icl.transformer import Transformer
from icl.words import GROWTH, LOWER, PERCENT, PLAIN

# What is said of heads, from their `Importance`.
EVERY_HEAD = Criterion(
    "factor by which the risk grows when one first-layer head is masked, the least of all heads",
    least_first,
    1.1,
    "A head matters if the model is clearly worse without it: by a tenth. The risk is compared "
    "with itself, not with what other heads do, because a head with a small share of a large rise "
    "can still not be spared.",
    ratio=True,
    said="masking the first-layer head that matters least raises the risk by {}",
    unit=GROWTH,
)
ONE_HEAD = Criterion(
    "top-1 share of importance in every later layer",
    top_later,
    0.5,
    "Above one half, one head outweighs all others of its layer together. The layers are judged "
    "one by one; their intervals are so wide that all hold at once with 95 %.",
    (0.0, 1.0),
    said="the top head of a later layer has {} of the layer's importance",
    unit=PERCENT,
)
MORE_EVEN = Criterion(
    "normalised entropy of importance in layer 1 minus that of every later layer",
    contrast,
    0.0,
    "Above zero, the first layer spreads its work over more heads than the later one does. The "
    "layers are judged as before.",
    (-1.0, 1.0),
    said="the first layer's heads are more even than a later layer's by {} in normalised entropy",
    unit=PLAIN,
)


def plot_shares(found: dict[str, Tensor]) -> None:
    """Shares of heads (M, L, H) in percent, by rank within layer and seed, a panel per name."""
    heights = [shares.shape[1] + 2.2 for shares in found.values()]
    size = {"figsize": (figures.WIDTH, 0.3 * sum(heights)), "height_ratios": heights}
    _, panels = figures.subplots(len(found), 1, squeeze=False, **size)
    for axes, (name, shares) in zip(panels[:, 0], found.items(), strict=True):
        ranked = shares.nan_to_num(0).sort(dim=-1, descending=True).values
        mean = pd.DataFrame(100 * ranked.mean(dim=0).numpy())
        mean = mean.rename(columns=lambda i: i + 1, index=lambda i: f"layer {i + 1}")
        figures.heat_map(axes, mean, Normalize(0, 100), figures.SHARES)
        axes.set_title(f"{name} ({len(ranked)} seeds)")
    axes.set_xlabel("head, by rank within its layer")


def plot_top_shares(found: dict[str, Tensor]) -> None:
    """The largest share of every layer, from (M, L): a panel per name, and one half as a line."""
    rows = [
        {"panel": name, "label": f"layer {layer}", "value": value}
        for name, tops in found.items()
        for layer, top in enumerate(tops.nan_to_num(0).unbind(dim=1), 1)
        for value in top.tolist()
    ]
    half = [{"panel": name, "label": "claimed", "value": ONE_HEAD.threshold} for name in found]
    figures.dots(pd.DataFrame(rows), pd.DataFrame(half), "share of the top head", most=1.0)


class Profile(NamedTuple):
    """What a model shows of its heads on one task, and what they are good for.

    heads: importance of its heads, on some of the contexts.
    risk: (M, B) its risks; bar: (B,) those of ridge or of one head per layer, averaged over its
        seeds, whichever is better.
    """

    heads: Importance
    risk: Tensor
    bar: Tensor

    def gain(self) -> Tensor:
        """By what fraction (M,) the risk is below the bar."""
        return reduction(self.risk, self.bar)


def later(values: Tensor) -> Tensor:
    """Mean (M,) over layers after the first, of what layers have, (M, L)."""
    return values[:, 1:].nanmean(dim=1)


def rise(found: Importance) -> Estimate:
    """Relative rise of the risk without the least important head of the first layer."""
    return Estimate(*(factor - 1 for factor in vars(geometric(least_first(found))).values()))


# What is shown of a profile, as fractions, over seeds.
SHOWN: dict[str, Callable[[Profile], Estimate]] = {
    "risk below the better of ridge and one head": lambda x: over_seeds(x.gain()),
    "rise without the least important head of layer 1": lambda x: rise(x.heads),
    "top share in later layers, mean": lambda x: over_seeds(later(x.heads.top_share)),
    "entropy in layer 1 minus that of later layers, mean": lambda x: over_seeds(
        x.heads.entropy[:, 0] - later(x.heads.entropy)
    ),
}


def _of_heads(criterion: Criterion) -> Criterion:
    """The same criterion of a profile's heads."""
    return replace(
        criterion, measure=wraps(criterion.measure)(lambda x: criterion.measure(x.heads))
    )


# What is said of a model's first layer and of its later ones, from its profile.
FIRST_LAYER = (_of_heads(EVERY_HEAD),)
LATER_LAYERS = (
    _of_heads(ONE_HEAD),
    _of_heads(MORE_EVEN),
    Criterion(
        "reduction of the risk, as a fraction, below the better of ridge and of a model with one "
        "head per layer",
        Profile.gain,
        0.0,
        "A head that rules is of interest only in a model that makes use of the others.",
        (-torch.inf, 1.0),
        said="against the better of ridge and one head per layer, the risk is {}",
        unit=LOWER,
    ),
)


def profiles(
    models: dict[str, Transformer], alone: Transformer, on: Comparison
) -> dict[str, Profile]:
    """Models of one task on the same contexts, a quarter of them for heads; alone has one head."""
    single = on.risk(alone).mean(dim=0)
    bar = min(on.baselines["ridge"], single, key=lambda risk: trimmed(risk, -1))
    few = max(2, len(on.contexts) // 4)

    def profile(model: Transformer) -> Profile:
        heads = importance(steady(model), on.contexts[:few])
        others = excess_risk(model, on.contexts[few:])
        return Profile(heads, torch.cat([heads.full.to(others), others], dim=-1), bar)

    return {name: profile(model) for name, model in models.items()}


@dataclass(frozen=True)
class Profiled(Judged):
    """The verdicts, and a profile by what was varied."""

    varied: dict[str, Profile]

    def frame(self) -> pd.DataFrame:
        """A row per profile, a column per measure: means over seeds, in percent."""
        return pd.DataFrame(
            {
                name: {what: 100 * shown(one).value for what, shown in SHOWN.items()}
                for name, one in self.varied.items()
            }
        ).T

    def plot_varied(self) -> None:
        """The frame as a heat-map."""
        table = self.frame().rename(index=lambda name: fill(name, 20))
        _, axes = figures.subplots(figsize=(figures.WIDTH, 0.42 * len(table) + 1.2))
        figures.percentages(axes, table)
        axes.set_xticks(axes.get_xticks(), [fill(what, 10) for what in SHOWN])
        axes.tick_params(axis="x", labelbottom=False, labeltop=True)

    def numbers(self) -> tables.Text:
        """Risk and what is shown of every profile, with intervals over seeds, and decisions."""
        rows = [
            {"setting": name, "excess risk [95 %]": estimate(one.risk)}
            | {what: shown(one) for what, shown in SHOWN.items()}
            | {claim: verdict.settings[name] for claim, verdict in self.verdicts.items()}
            for name, one in self.varied.items()
        ]
        return tables.show(pd.DataFrame(rows))


def steady(model: Transformer) -> Transformer:
    """The model, or a copy in float64 if it is deep: headless, its answers can leave float32."""
    return copy.deepcopy(model).double() if len(model.blocks) > 4 else model


@dataclass(frozen=True)
class Likeness:
    """How near the weights ŵ of models' answers are to those of estimators, context by context.

    size: (M, B) squared length of ŵ. away: by estimator, its squared distance from ŵ, (M, B).
    nonlinear: (M, B) the share of the answers' mean square that no weights explain.
    """

    size: Tensor
    away: dict[str, Tensor]
    nonlinear: Tensor

    def explained(self, name: str) -> Tensor:
        """Fraction (M,) of ŵ that an estimator explains: 1 − its distance over the length of ŵ."""
        return 1 - trimmed(self.away[name], -1) / trimmed(self.size, -1)

    def estimate(self, name: str) -> Estimate:
        """The same over seeds, with an interval for seeds and contexts."""
        variance = over_contexts(lambda found: found.explained(name), self).item()
        return over_seeds(self.explained(name), variance=variance).within(high=1.0)


def rivals(contexts: Contexts, names: Iterable[str]) -> dict[str, Tensor]:
    """Weights (B, d) of tuned estimators by their names, to compare models with."""
    return {name: ESTIMATORS[name].tuned(contexts.task).weights(contexts) for name in names}


def likeness(model: Predictor, contexts: Contexts, rivals: dict[str, Tensor]) -> Likeness:
    """Compare what answers imply with other weights; models that are not linear need queries."""
    if isinstance(model, LinearPredictor):
        weights = model.weights(contexts).double()
        nonlinear = weights.new_zeros(weights.shape[:-1])
    else:
        weights, nonlinear = implied_weights(model, contexts)
    zero, *others = (
        squared_error(weights, replace(contexts, w=u)) for u in (0 * contexts.w, *rivals.values())
    )
    return Likeness(zero, dict(zip(rivals, others, strict=True)), nonlinear)
