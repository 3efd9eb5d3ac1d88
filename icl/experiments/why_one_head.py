"""Why one head? What a head costs, and whether decay undoes a step that is split over heads."""

import math
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.architecture import Architecture
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, Claim, Criterion, Judged, judge
from icl.configuration import Configuration, Plan, Split
from icl.contexts import check, draw
from icl.costs import effective, head_costs, head_norms, leading, merge, merging_law
from icl.experiments.comparison import Comparison
from icl.experiments.models import DECAYED, DENSE, EQUAL, FULL, SPARSEST, filed, trained, workhorse
from icl.heads import Importance, importance, least_first
from icl.intervals import estimate, over_seeds
from icl.predictors import excess_risk
from icl.recipe import USUAL
from icl.starts import split
from icl.threads import one_thread
from icl.transformer import Transformer
from icl.words import PERCENT

DECAYS = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
JUDGED = (1e-4, 1e-3, 1e-2)  # decays of the settings that the claim is judged in
LOOKS = (600, 2_000)  # steps after which weights are kept
# What is split: Algorithm 1, its two steps with the rate of the least mean risk on stream `tune`,
# and, where nothing is better than one step of gradient descent, that step with its best rate.
STARTS = {
    "Algorithm 1": (SPARSEST, Architecture(8, (8, 4, 4), 9, 18), Split(0.298)),
    "one step": (DENSE, Architecture(8, (4,), 9, 10), Split(32 / 42)),
}
FILES = {"Algorithm 1": "split-844", "one step": "split-4"}
SPLIT = dict(
    filed(
        f"{FILES[name]}-{decay:g}",
        Plan(
            Configuration(task, model, replace(USUAL["split"], weight_decay=decay), split=start),
            snapshots=LOOKS if decay else (),
        ),
    )
    for name, (task, model, start) in STARTS.items()
    for decay in DECAYS
)
# Models that started from drawn weights, without decay and with more of it.
DRAWN = {
    "heads-4-3": EQUAL["heads-4-3"],
    "decay-0.0003-k9-3-14000": workhorse(4, 4, 4, weight_decay=3e-4),
    "decay-0.0006-k9-3-14000": workhorse(4, 4, 4, weight_decay=6e-4),
    "workhorse-3": FULL["workhorse-3"],
    **DECAYED,
}
PLANS = SPLIT | DRAWN

# Costs (M, H) of the heads of every layer that takes a step, by its name.
Costs = dict[str, Tensor]


def highest(cost: Tensor) -> Tensor:
    """The share of the costliest head in the cost of its layer (M, H), (M,)."""
    return cost.amax(dim=1) / cost.sum(dim=1)


def top(pair: tuple[Costs, Costs]) -> dict[str, Tensor]:
    """That share in every layer, of the first of a pair: the costs with decay and without."""
    return {layer: highest(cost) for layer, cost in pair[0].items()}


def growth(pair: tuple[Costs, Costs]) -> dict[str, Tensor]:
    """By how much that share is larger with decay than without."""
    without = top(pair[::-1])
    return {layer: share - without[layer] for layer, share in top(pair).items()}


A18 = Claim(
    "A18",
    AFTER_CHEN,
    "Under weight decay a step that is split over heads returns to one head, and without it stays "
    "split.",
    (
        Criterion(
            "costliest head's share in the cost of every layer that takes a step",
            top,
            0.9,
            "A head that takes a fraction α of a step costs as √α. So at nine tenths of the cost "
            "one head takes all of the step but 1.2 % at most; split at random it has about two "
            "fifths.",
            (0.0, 1.0),
            said="the costliest head has {} of the cost of its layer's step",
            unit=PERCENT,
        ),
        Criterion(
            "same share minus that of the same seeds without decay",
            growth,
            0.0,
            "Above zero it is decay that merges heads, and not training alone.",
            (-1.0, 1.0),
            said="that head's share is larger with decay than without by {}",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = (A18,)


def steps_of(model: Transformer) -> Costs:
    """The costs of the heads in layers that take steps: all but a first one that preprocesses."""
    costs = head_costs(model)
    return {f"layer {i}": c for i, c in enumerate(costs, 1) if i > 1 or len(costs) == 1}


@dataclass(frozen=True)
class Result(Judged):
    """What became of split steps, and what heads cost in models from drawn weights.

    `starts` are models before their training. Risks (M, B) and importances are of those that
    started split, by name.
    """

    starts: dict[str, Transformer]
    models: dict[str, Checkpoint]
    risks: dict[str, Tensor]
    importances: dict[str, Importance]
    comparison: Comparison

    @property
    def finding(self) -> tables.Text:
        """The verdict in a sentence, and what is left of the first layer meanwhile."""
        names = by_decay("Algorithm 1")
        ends = {decay: head_costs(self.models[names[decay]].model)[0] for decay in JUDGED}
        first = (f"{over_seeds(effective(c))} at decay {decay:g}" for decay, c in ends.items())
        return tables.Text(
            f"{super().finding}\n\n**The first layer,** whose 8 heads preprocess, keeps an "
            f"effective number of {'; '.join(first)}."
        )

    def risk(self, start: str, decay: float) -> float:
        """The average risk of the models of one start and decay."""
        return estimate(self.risks[by_decay(start)[decay]]).value

    def plot_decay(self) -> None:
        """The effective number of heads of every layer before training and after, by decay."""
        rows = []
        for start, untrained in self.starts.items():
            ends = (self.models[name].model for name in by_decay(start).values())
            for at, model in enumerate([untrained, *ends]):
                for i, cost in enumerate(head_costs(model), 1):
                    about = {"panel": start, "label": f"layer {i}", "at": at}
                    rows.append(about | vars(over_seeds(effective(cost))))
        figures.curves(pd.DataFrame(rows), "at", "weight decay", "effective heads", log="")
        plt.gca().set_xticks(range(len(DECAYS) + 1), ["start", *(f"{w:g}" for w in DECAYS)])

    def plot_law(self) -> None:
        """Heads that share A ⊗ B under gradient descent with decay, and the law's shares."""
        decay, rate, shares = 0.02, 0.5, (0.4, 0.3, 0.2, 0.1)
        cost = merge(torch.tensor(shares), decay, rate, 400)
        times, law = torch.arange(401) * rate * decay, merging_law(cost[0], rate * decay, 400)
        fig, axes = figures.subplots(figsize=(figures.WIDTH, 3.6))
        handles, heads = {}, figures.looks(f"{share:.0%} of the step at first" for share in shares)
        for head, (label, look) in enumerate(heads.items()):
            found = cost[:, head] / cost.sum(dim=1)
            (handles[label],) = axes.plot(times, found, color=look["color"], linewidth=3)
            (handles["the law"],) = axes.plot(times, law[:, head], "k:", linewidth=1.5)
        handles["least / whole cost"] = axes.plot(times, 4 / cost.sum(dim=1), "--", color="0.5")[0]
        axes.set(xlabel="decay × time", ylabel="share of the cost", ylim=(0, 1.05))
        figures.key(fig, handles)

    def plot_clock(self) -> None:
        """The costliest head's share against decay times the sum of learning rates so far."""
        rows = []
        for start in STARTS:
            for decay, name in by_decay(start).items():
                model, rate = self.models[name], self.models[name].config.recipe.rate
                for step in model.snapshots:
                    at = decay * sum(map(rate, range(step)))
                    for layer, cost in steps_of(model.at(step)).items():
                        about = {"panel": f"{start}, {layer}", "label": f"decay {decay:g}"}
                        found = over_seeds(highest(cost)).within(0.0, 1.0)
                        rows.append(about | {"log": math.log10(at)} | vars(found))
        labels = "log₁₀ of decay × sum of learning rates", "share of the costliest head"
        figures.curves(pd.DataFrame(rows), "log", *labels, log="")

    def numbers(self) -> tables.Text:
        """Risk of every model that started split, and what masking its heads says."""
        risks = {f"{k}, sparse task": risk for k, risk in self.comparison.baselines.items()}
        rows = [{"predictor": k, "excess risk [95 %]": estimate(v)} for k, v in risks.items()]
        for start in STARTS:
            for decay, name in by_decay(start).items():
                found = self.importances[name]
                about = {"predictor": f"{start}, decay {decay:g}"}
                about["excess risk [95 %]"] = estimate(self.risks[name])
                about["least relative rise, layer 1"] = tables.ranged(least_first(found) - 1)
                for i, share in enumerate(found.top_share.unbind(dim=1), 1):
                    about[f"top share of importance, layer {i}"] = tables.ranged(share)
                rows.append(about)
        return tables.show(pd.DataFrame(rows).fillna(""))

    def carried(self, name: str) -> list[dict[str, Tensor]]:
        """What every layer of a model costs and who carries it, (M,) each, layer by layer."""
        parts = (measure(self.models[name].model) for measure in (head_costs, head_norms, leading))
        return [
            {
                "cost": cost.sum(dim=1),
                "effective heads": effective(cost),
                "top share of cost": highest(cost),
                "one term's part": part,
                "squared norm / cost": norm.sum(dim=1) / cost.sum(dim=1),
            }
            for cost, norm, part in zip(*parts, strict=True)
        ]

    def layers(self) -> tables.Text:
        """The same of all models."""
        rows = [
            {"model": model.label, "layer": i}
            | {what: tables.ranged(values) for what, values in layer.items()}
            for name, model in self.models.items()
            for i, layer in enumerate(self.carried(name), 1)
        ]
        return tables.show(pd.DataFrame(rows))


def by_decay(start: str) -> dict[float, str]:
    """The names of models of one start by their decay."""
    return {decay: f"{FILES[start]}-{decay:g}" for decay in DECAYS}


@one_thread()
def run(contexts: int, seed: int) -> Result:
    """Costs; risks on so many contexts of this seed, importances on a quarter of them."""
    check(contexts, seed, 8)
    models = trained(PLANS)
    starts, risks, importances, measured = {}, {}, {}, {}
    for start, (task, *_) in STARTS.items():
        batch = draw(task, contexts, "evaluate", seed)
        for name in by_decay(start).values():
            risks[name] = excess_risk(models[name].model, batch)
            importances[name] = importance(models[name].model, batch[: contexts // 4])
        ends = {decay: models[name] for decay, name in by_decay(start).items()}
        starts[start] = split(ends[0.0].config, ends[0.0].seeds)
        for decay in JUDGED:
            pair = (ends[decay], ends[0.0].only(ends[decay].seeds))
            measured[f"{start}, decay {decay:g}"] = tuple(steps_of(x.model) for x in pair)
    on = Comparison.on(SPARSEST, contexts, seed)
    return Result(judge(CLAIMS, measured), starts, models, risks, importances, on)
