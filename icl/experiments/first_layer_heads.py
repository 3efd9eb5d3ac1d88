"""How many heads does the first layer need? Every number of them, with one head per later layer."""

from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, Claim, Criterion, Judged, judge
from icl.constructions import most_readable
from icl.contexts import Contexts, check, draw
from icl.experiments.comparison import TAIL, Comparison
from icl.experiments.models import Filed, filed, named, sparse, trained_families
from icl.intervals import Estimate, estimate, number, over_contexts, over_seeds, reduction
from icl.predictors import squared_error
from icl.probing import fit, read, states
from icl.starts import fresh
from icl.transformer import LinearTransformer
from icl.words import FALL, PERCENT

HEADS = (1, 2, 4, 8, 16)  # of the first layer; every later one has one


def family(s: int, noise: float) -> dict[int, Filed]:
    """By heads of the first layer, models of one task."""
    return {h: filed(named(s, noise, (h, 1, 1), 0.0), sparse(s, noise, (h, 1, 1))) for h in HEADS}


FAMILIES = {f"s = {s}, noise {noise:g}": family(s, noise) for s, noise in ((1, 0.5), (2, 1.0))}
PLANS = dict(plan for found in FAMILIES.values() for plan in found.values())
FITTING = 2048  # contexts of stream `tune` that read-outs are fitted on


class Reading(NamedTuple):
    """How well r̂_j x_qj is read off the states after layer 1, by heads of that layer.

    missed, size: squared error (M, B) of the read-out and of reading nothing, summed over j.
    share: the part of it that so many heads can leave readable at most.
    """

    missed: Tensor
    size: Tensor
    share: float


def by_doubling(risks: dict[int, Tensor]) -> dict[str, Tensor]:
    """By what fraction (M,) each doubling of the heads, up to one per feature, lowers the risk."""
    pairs = pairwise(h for h in risks if h <= 8)
    return {f"{a} to {b} heads": reduction(risks[b], risks[a]) for a, b in pairs}


def beyond(risks: dict[int, Tensor]) -> Tensor:
    """What 16 heads do not gain over eight: minus the reduction of the risk, (M,)."""
    return -reduction(risks[16], risks[8])


def explained(found: Reading) -> Tensor:
    """R² (M,) of reading the preprocessed query after layer 1."""
    return 1 - found.missed.mean(dim=-1) / found.size.mean(dim=-1)


def reached(found: Reading) -> Tensor:
    """R² as a share (M,) of what so many heads can reach."""
    return explained(found) / found.share


A10 = Claim(
    "A10",
    AFTER_CHEN,
    "The first layer needs as many heads as there are features, and no more.",
    (
        Criterion(
            "reduction of the risk, as a fraction, with every doubling of the first layer's heads "
            "from one to one per feature",
            by_doubling,
            0.0,
            "Above zero for every doubling: each further head pays, not one special number. "
            "Three doublings are judged at once, so their intervals are wider than 95 %.",
            (-torch.inf, 1.0),
            said="with every doubling of the first layer's heads, up to one per feature, "
            "the risk falls by {}",
            unit=PERCENT,
        ),
        Criterion(
            "reduction of the risk, as a fraction, from eight first-layer heads to 16, negated",
            beyond,
            -0.1,
            "Preprocessing d features takes d heads; if twice as many lowered the risk by a tenth "
            "or more, the first layer would do something else with them.",
            (-1.0, torch.inf),
            said="from eight first-layer heads to 16 the risk falls by {}",
            unit=FALL,
        ),
    ),
)
A11 = Claim(
    "A11",
    AFTER_CHEN,
    "The first layer preprocesses as well as its number of heads allows.",
    (
        Criterion(
            "R² of a linear read-out of the preprocessed query after layer 1, as a share of what "
            "so many heads can reach",
            reached,
            2 / 3,
            "h heads can leave 2h/d of the preprocessed query readable at most. Layers with "
            "random weights reach 0.16 to 0.3 of it, and one head that takes a gradient step one "
            "half, so above two thirds the layer preprocesses.",
            (-torch.inf, 1.0),
            said="what can be read of the preprocessed query after layer 1 is {} of what "
            "so many heads allow",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = (A10, A11)


def reading(model: LinearTransformer, contexts: Contexts) -> Reading:
    """Fit the read-out of diag(r̂) x_q after layer 1 on stream `tune`, and judge it."""
    fitting = draw(contexts.task, FITTING, "tune", seed=1)  # baselines are tuned on seed 0
    seen, new = (next(islice(states(model, batch), 1, None)) for batch in (fitting, contexts))
    products = read(new, fit(seen, torch.diag_embed(fitting.xy), fitting))
    wanted = replace(contexts, w=torch.diag_embed(contexts.xy))  # column j is r̂_j e_j
    missed, size = (squared_error(x, wanted).sum(dim=-1) for x in (products.mT, 0 * products))
    share = most_readable(contexts.task.d, model.config.heads[0], model.config.d_head)
    return Reading(missed, size, share)


@dataclass(frozen=True)
class Family:
    """Models of one task by the heads of their first layer: risks (M, B) and read-outs."""

    models: dict[int, Checkpoint]
    comparison: Comparison
    risks: dict[int, Tensor]
    readings: dict[int, Reading]
    untrained: dict[int, Reading]


@dataclass(frozen=True)
class Result(Judged):
    """The verdicts, and a family of models by setting."""

    families: dict[str, Family]

    def plot_risks(self) -> None:
        """Risk against the heads of the first layer, beside what bounds a good answer."""
        rows = []
        for setting, family in self.families.items():
            for h, risk in family.risks.items():
                about = {"panel": setting, "heads": h}
                rows.append(about | {"label": "h-1-1 heads"} | vars(estimate(risk)))
                references = family.comparison.references(setting).to_dict("records")
                rows += [row | about for row in references]
        figures.curves(pd.DataFrame(rows), "heads", "heads in the first layer h", log="x")

    def plot_readings(self) -> None:
        """R² of reading the preprocessed query after layer 1, below what is possible."""
        rows = []
        for setting, family in self.families.items():
            known = {"trained": family.readings, "random weights": family.untrained}
            for label, readings in known.items():
                rows += [
                    {"panel": setting, "label": label, "heads": h, **vars(_estimate(found))}
                    for h, found in readings.items()
                ]
            for h, found in family.readings.items():
                most = dict.fromkeys(("value", "low", "high"), found.share)
                rows.append({"panel": setting, "label": "most possible", "heads": h, **most})
        lines = pd.DataFrame(rows)
        figures.curves(lines, "heads", "heads in the first layer h", "R² of r̂ ∘ x", log="x")

    def numbers(self) -> tables.Text:
        """Risks with their tails, and read-outs."""
        rows = [
            {
                "model": family.models[h].label,
                "excess risk [95 %]": estimate(risk),
                "R² [95 %]": _estimate(family.readings[h]),
                "R², random weights": _estimate(family.untrained[h]),
                "most possible": f"{family.readings[h].share:.2f}",
            }
            | {k: number(tail(risk, family.comparison.zero).mean()) for k, tail in TAIL.items()}
            for family in self.families.values()
            for h, risk in family.risks.items()
        ]
        return tables.show(pd.DataFrame(rows))


def _estimate(found: Reading) -> Estimate:
    variance = over_contexts(explained, found).item()
    return over_seeds(explained(found), variance=variance).within(high=1.0)


def judged(models: dict[int, Checkpoint], contexts: int, seed: int) -> Family:
    """Measure the models of one task on the same contexts, read-outs on a quarter of them."""
    comparison = Comparison.on(models[1].config.task, contexts, seed)
    few = comparison.contexts[: max(2, contexts // 4)]
    return Family(
        models,
        comparison,
        {h: comparison.risk(model.model) for h, model in models.items()},
        {h: reading(model.model, few) for h, model in models.items()},
        {h: reading(fresh(model.config, model.seeds), few) for h, model in models.items()},
    )


def run(contexts: int, seed: int) -> Result:
    """Measure risks on so many contexts of this seed, and read-outs on a quarter of them."""
    check(contexts, seed)
    families = {
        setting: judged(models, contexts, seed)
        for setting, models in trained_families(FAMILIES).items()
    }
    readings = {
        f"{setting}, {h}-1-1 heads": found
        for setting, family in families.items()
        for h, found in family.readings.items()
    }
    risks = {setting: family.risks for setting, family in families.items()}
    verdicts = judge((A10,), risks, shared=True) | judge((A11,), readings, shared=True)
    return Result(verdicts, families)
