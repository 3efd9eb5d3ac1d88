"""Is one head per later layer enough? Trained models pruned, with and without fine-tuning."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Criterion, Judged, judge
from icl.configuration import Configuration, Plan, Start
from icl.contexts import Contexts, check
from icl.experiments.comparison import TAIL, Comparison
from icl.experiments.models import FULL, SINGLE_HEAD, trained
from icl.heads import mask, rises
from icl.intervals import estimate, geometric, number, reduction, trimmed
from icl.predictors import excess_risk
from icl.starts import pruned, tuned_importance
from icl.transformer import LinearTransformer
from icl.words import GROWTH, LOWER, PERCENT

WHOLE, TUNED, SINGLE = "all heads", ", fine-tuned", "one head, from scratch"
BEYOND = 10.0  # risk where figures end
# Whole models, and those of one head per layer that were trained from scratch.
PAIRS = dict(zip(FULL, SINGLE_HEAD, strict=True))


def prunings(name: str) -> dict[str, Plan]:
    """Ways to prune a model and train it half of its steps again, at half its rate.

    One head in every later layer, the most important or a random one; or one in the first.
    Five layers, whose losses are beyond single precision in some contexts, take double.
    """
    whole = FULL[name].config
    first, *later = whole.architecture.heads
    precision = "double" if len(later) > 2 else "single"
    steps, lr = whole.recipe.steps // 2, whole.recipe.lr / 2
    recipe = replace(whole.recipe, steps=steps, lr=lr, precision=precision)

    def plan(heads: tuple[int, ...], keep: str) -> Plan:
        model = replace(whole.architecture, heads=heads)
        return Plan(Configuration(whole.task, model, recipe, Start(name, whole.hash, keep)))

    many_first = (first, *[1] * len(later))
    return {
        f"{name}-pruned": plan(many_first, "importance"),
        f"{name}-pruned-random": plan(many_first, "random"),
        f"{name}-pruned-reverse": plan((1, *later), "importance"),
    }


def named(plan: Plan) -> str:
    """The heads that every layer keeps, as in "8-1-1 random"."""
    heads = "-".join(map(str, plan.config.architecture.heads))
    return heads + " random" * (plan.config.start.keep == "random")


PRUNED = prunings("workhorse-3") | prunings("workhorse-5") | prunings("flagship")
PLANS = FULL | PRUNED | SINGLE_HEAD


class Risks(NamedTuple):
    """Risks that decide: of ridge, (B,), and of a model whole and pruned, (M, B)."""

    ridge: Tensor
    full: Tensor
    many_first: Tensor
    many_later: Tensor


def advantage(risks: Risks) -> Tensor:
    """By what fraction (M,) the whole model's risk is below that of ridge."""
    return reduction(risks.full, risks.ridge)


def advantage_left(risks: Risks) -> Tensor:
    """Share (M,) of the advantage over ridge that is left with one head in every later layer."""
    return reduction(risks.many_first, risks.ridge) / advantage(risks)


def first_needed(risks: Risks) -> Tensor:
    """How many times (M,) the risk with one head in every later layer that with one in the first
    is.
    """
    return 1 - reduction(risks.many_later, risks.many_first)


A4 = Claim(
    "A4",
    CHEN,
    "One head per later layer is sufficient; the first layer needs its many.",
    (
        Criterion(
            "reduction of the whole model's risk below tuned ridge, as a fraction",
            advantage,
            0.0,
            "Only of an advantage can a share be left.",
            (-math.inf, 1.0),
            said="against ridge, the whole model's risk is {}",
            unit=LOWER,
        ),
        Criterion(
            "share of the model's advantage over tuned ridge that is left when every later "
            "layer keeps only its most important head",
            advantage_left,
            0.5,
            "At 1 nothing is lost, at 0 the model is no better than ridge. Above one half, "
            "the heads that are kept are worth more than all those removed.",
            said="with one head left in every later layer, a model keeps {} of its "
            "advantage over ridge",
            unit=PERCENT,
        ),
        Criterion(
            "risk with one head in the first layer and all later ones, as a multiple of the risk "
            "with all heads in the first layer and one in each later one",
            first_needed,
            1.1,
            "Pruning the first layer is worse by a tenth, although it removes fewer heads.",
            ratio=True,
            said="with one head in the first layer instead of one in each later one, the "
            "risk grows by {}",
            unit=GROWTH,
        ),
    ),
)
CLAIMS = (A4,)


@dataclass(frozen=True)
class Case:
    """A trained model, and risks (M, B) of it and of what is left of it, by how it was pruned."""

    whole: Checkpoint
    comparison: Comparison
    risks: dict[str, Tensor]

    @property
    def settings(self) -> dict[str, Risks]:
        """What decides, as pruned and as fine-tuned."""
        risks, ridge = self.risks, self.comparison.baselines["ridge"]
        first, _, later = map(named, prunings(self.whole.name).values())
        return {
            self.whole.label + tuned: Risks(
                ridge, risks[WHOLE], risks[first + tuned], risks[later + tuned]
            )
            for tuned in ("", TUNED)
        }


@dataclass(frozen=True)
class Result(Judged):
    """The verdict, every model's risks, and `removed`: median risks as heads go one by one."""

    cases: list[Case]
    removed: pd.DataFrame

    def plot_risks(self) -> None:
        """Risks, a dot per seed, beside the references; an arrow where all exceed 10."""
        rows = [
            {"panel": case.whole.label, "label": how, "value": value}
            for case in self.cases
            for how, risk in case.risks.items()
            for value in trimmed(risk, dim=-1).tolist()
        ]
        references = [case.comparison.references(case.whole.label) for case in self.cases]
        figures.dots(pd.DataFrame(rows), pd.concat(references), limit=BEYOND)

    def plot_removed(self) -> None:
        """Median risks against the number of removed heads, a panel per model."""
        figures.curves(
            self.removed, "heads", "heads removed", "median excess risk", span=(0.0, BEYOND)
        )

    def numbers(self) -> tables.Text:
        """Everything with its tail."""
        rows = [
            {"model": f"{case.whole.label}: {how}", "excess risk [95 %]": estimate(risk)}
            | {k: number(tail(risk, case.comparison.zero).mean()) for k, tail in TAIL.items()}
            for case in self.cases
            for how, risk in case.risks.items()
        ]
        return tables.show(pd.DataFrame(rows))


def run(contexts: int, seed: int) -> Result:
    """Prune all models and measure them on so many evaluation contexts of this seed."""
    check(contexts, seed)
    models = trained(PLANS)
    tasks = {models[name].config.task for name in PAIRS}
    on = {task: Comparison.on(task, contexts, seed) for task in tasks}
    cases = [measured(name, models, on[models[name].config.task]) for name in PAIRS]
    settings = {name: risks for case in cases for name, risks in case.settings.items()}
    few = max(2, contexts // 16)
    removed = [one_by_one(case.whole, case.comparison.contexts[:few]) for case in cases]
    return Result(judge(CLAIMS, settings, shared=True), cases, pd.concat(removed))


def measured(name: str, models: dict[str, Checkpoint], comparison: Comparison) -> Case:
    """Risks of a model whole, pruned in every way, fine-tuned, and of one head from scratch."""
    risks = {WHOLE: comparison.risk(models[name].model)}
    for smaller, plan in prunings(name).items():
        cut = pruned(plan.config.start, plan.config.architecture, plan.seeds).double()
        risks[named(plan)] = comparison.risk(cut)
        risks[named(plan) + TUNED] = comparison.risk(models[smaller].model)
    risks[SINGLE] = comparison.risk(models[PAIRS[name]].model)
    return Case(models[name], comparison, risks)


def one_by_one(whole: Checkpoint, contexts: Contexts) -> pd.DataFrame:
    """Median risk after removing heads in three orders: a row per order and number of heads."""
    score, rng = rises(tuned_importance(whole.name)), torch.Generator().manual_seed(0)
    scores = {
        "least important first": score,
        "most important first": [-s for s in score],
        "random": [torch.rand(s.shape, generator=rng) for s in score],
    }
    rows = [
        {"panel": whole.label, "label": order, "heads": heads, **vars(geometric(medians))}
        for order, s in scores.items()
        for heads, medians in enumerate(removal(whole.model, s, contexts).quantile(0.5, dim=-1))
    ]
    return pd.DataFrame(rows)


@torch.no_grad()
def removal(model: LinearTransformer, scores: list[Tensor], contexts: Contexts) -> Tensor:
    """Risk after masking the k heads of lowest score, k = 0 to all of them, (K+1, M, B).

    scores: for every layer, a score per model and head, (M, H).
    """
    ranks = torch.cat(scores, dim=1).argsort(dim=1).argsort(dim=1)
    total = ranks.shape[1]
    kept = [(ranks >= k).split(list(model.config.heads), dim=1) for k in range(total + 1)]
    return torch.stack([excess_risk(mask(model, list(k)), contexts) for k in kept])
