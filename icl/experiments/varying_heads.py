"""Do more heads help? Models of 1, 2, 4 and 8 heads per layer, over the number of examples."""

import math
from dataclasses import dataclass, replace
from itertools import product

import pandas as pd
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import AFTER_CHEN, CHEN, Claim, Criterion, Judged, judge
from icl.contexts import check
from icl.errors import whole
from icl.experiments.comparison import BASELINES, Comparison, advantage, gain, standings
from icl.experiments.models import (
    BY_HEADS,
    EQUAL,
    FIRST,
    FLAGSHIP,
    FULL,
    SINGLE_HEAD,
    WORKHORSE,
    filed,
    trained,
    workhorse,
)
from icl.intervals import estimate, over_seeds, reduction, trimmed
from icl.tasks import Task
from icl.words import LOWER, PERCENT

EQUALLY = {depth: BY_HEADS[depth] for depth in (3, 5)}  # heads in every layer
LENGTHS = (16, 24, 32, 48, 64, 128, 256)  # examples per context to evaluate at
# Three layers trained for other numbers of examples, by heads per layer and that number.
OTHER_N = {(h, n): f"heads-{h}-n{n}" for n in (16, 64) for h in (1, 8)}
AT_MOST_ALL = (-math.inf, 1.0)  # what a risk can be reduced by, as a fraction
AXES = ("examples n per context", "median excess risk")
# Many heads in one layer only, between one head and many in every layer.
PLACES = {
    "3 layers, d = 8": ("heads-1-3", "heads-811", "heads-181", "heads-118", "workhorse-3"),
    "3 layers, d = 16": ("flagship-1", "flagship-811", "flagship"),
}
PLANS = {
    **{name: EQUAL[name] for names in EQUALLY.values() for name in names.values()},
    "heads-811": FIRST["heads-811"],
    "heads-181": workhorse(1, 8, 1),
    "heads-118": workhorse(1, 1, 8),
    **dict(filed(name, workhorse(h, h, h, n=n)) for (h, n), name in OTHER_N.items()),
    "flagship-1": SINGLE_HEAD["flagship-1"],
    "flagship-811": FIRST["flagship-811"],
    "flagship": FULL["flagship"],
}


def by_doubling(risks: dict[int, Tensor]) -> dict[str, Tensor]:
    """By what fraction (M,) every doubling of the heads lowers the risk."""
    return {f"{h} to {2 * h} heads": reduction(risks[2 * h], risks[h]) for h in (1, 2, 4)}


A1 = Claim(
    "A1",
    AFTER_CHEN,
    "More heads give lower risk.",
    (
        Criterion(
            "reduction of the risk from one head per layer to eight, as a fraction",
            gain,
            0.1,
            "A tenth is clearly better: more than models of one kind differ by seed.",
            AT_MOST_ALL,
            said="from one head per layer to eight the risk falls by {}",
            unit=PERCENT,
        ),
        Criterion(
            "reduction of the risk, as a fraction, with every doubling from one head to eight",
            by_doubling,
            0.0,
            "Above zero every doubling helps, so it is the number of heads that counts and "
            "not one special number. The doublings are judged one by one, with intervals so wide "
            "that all hold at once with 95 %.",
            AT_MOST_ALL,
            said="with every doubling of the heads the risk falls by {}",
            unit=PERCENT,
        ),
    ),
)
A8 = Claim(
    "A8",
    CHEN,
    "The trained transformer beats gradient descent and ridge regression.",
    (
        Criterion(
            "reduction of the risk below the better of tuned gradient descent and tuned ridge, as "
            "a fraction",
            advantage,
            0.1,
            "As for A7: a tenth is the least that deserves to be called better.",
            AT_MOST_ALL,
            said="against the better of gradient descent and ridge, the trained model's risk is {}",
            unit=LOWER,
        ),
    ),
)
CLAIMS = (A1, A8)


@dataclass(frozen=True)
class Result(Judged):
    """The verdicts by claim, and excess risks (M, B) by model and examples per context.

    Every model is evaluated at the length that it was trained for, those of equal heads in all
    layers and eight features at all `lengths`. `comparisons` has every task's baselines.
    """

    models: dict[str, Checkpoint]
    comparisons: dict[Task, Comparison]
    risks: dict[tuple[str, int], Tensor]
    lengths: tuple[int, ...]

    def plot_over_n(self) -> None:
        """Median risks against the number of examples, a panel per depth."""
        panels = []
        for depth, names in EQUALLY.items():
            models = [
                self._median(name, n, f"h = {h}") for h, name in names.items() for n in self.lengths
            ]
            panel = pd.DataFrame(models + self._baselines())
            panels.append(panel.assign(panel=f"{depth} layers, trained at n = 32"))
        figures.curves(pd.concat(panels), "n", *AXES, log="xy")

    def plot_own_n(self) -> None:
        """Median risks of models trained for the number of examples, beside those at 32."""
        at_32 = {(h, 32): EQUALLY[3][h] for h in (1, 8)}
        own = [
            self._median(name, n, f"h = {h}, own n")
            for (h, n), name in sorted((OTHER_N | at_32).items())
        ]
        away = [
            self._median(name, n, f"h = {h}")
            for (h, _), name in at_32.items()
            for n in self.lengths
        ]
        lines = pd.DataFrame(own + away + self._baselines()).query("n <= 64")
        figures.curves(
            lines.assign(panel="3 layers, trained at n = 32 or at their own n"),
            "n",
            *AXES,
            log="xy",
        )

    def plot_places(self) -> None:
        """Risks by the heads of each layer, a dot per seed."""
        rows, references = [], []
        for panel, names in PLACES.items():
            for name in names:
                task = self.models[name].config.task
                heads = self.models[name].label.split(", ")[0]
                risks = trimmed(self.risks[name, task.n], dim=-1).tolist()
                rows += [{"panel": panel, "label": heads, "value": risk} for risk in risks]
            references.append(self.comparisons[task].references(panel))
        figures.dots(pd.DataFrame(rows), pd.concat(references))

    def gains(self) -> tables.Text:
        """By what fraction eight heads have a lower risk than fewer, by examples."""
        rows = []
        for n, (depth, names), h in product(self.lengths, EQUALLY.items(), (1, 2, 4)):
            found = over_seeds(reduction(self.risks[names[8], n], self.risks[names[h], n]))
            rows.append({"n": n, "models": f"{depth} layers, 8 against {h}", **vars(found)})
        return tables.grid(pd.DataFrame(rows), "n", "models")

    @property
    def for_other_n(self) -> float:
        """By what fraction, at most, training at n = 32 and not at the own n raises the median."""
        pairs = [
            (self._median(EQUALLY[3][h], n, ""), self._median(name, n, ""))
            for (h, n), name in OTHER_N.items()
            if n in self.lengths
        ]
        return max(other["value"] / own["value"] - 1 for other, own in pairs)

    @property
    def first_alone(self) -> list[float]:
        """Share by seed of the gain of eight heads that the first layer's have, at d = 16."""
        one, first, every = (self.risks[name, FLAGSHIP.n] for name in PLACES["3 layers, d = 16"])
        return (reduction(first, one) / reduction(every, one)).tolist()

    def standings(self) -> tables.Text:
        """Every model beside the baselines on the contexts of its own task."""
        comparisons = {
            name: self.comparisons[model.config.task] for name, model in self.models.items()
        }
        return tables.show(standings(self.models, comparisons))

    def _median(self, name: str, n: int, label: str) -> dict:
        return {"label": label, "n": n, **vars(estimate(self.risks[name, n], "median"))}

    def _baselines(self) -> list[dict]:
        over_n = {n: self.comparisons[replace(WORKHORSE, n=n)] for n in self.lengths}
        return [
            {"label": name, "n": n, **vars(estimate(comparison.baselines[name], "median"))}
            for name in BASELINES
            for n, comparison in over_n.items()
        ]


def run(contexts: int, longest: int, seed: int) -> Result:
    """Evaluate all models on so many contexts of this seed, of at most `longest` examples."""
    check(contexts, seed)
    whole("longest", longest, WORKHORSE.n)
    models = trained(PLANS)
    lengths = tuple(n for n in LENGTHS if n <= longest)
    equal = {name for names in EQUALLY.values() for name in names.values()}
    pairs = [
        (model, replace(model.config.task, n=n))
        for name, model in models.items()
        for n in (lengths if name in equal else [model.config.task.n])
    ]
    comparisons = {
        task: Comparison.on(task, contexts, seed) for task in {task for _, task in pairs}
    }
    risks = {(model.name, task.n): comparisons[task].risk(model.model) for model, task in pairs}
    more_heads = {
        f"{depth} layers": {h: risks[name, WORKHORSE.n] for h, name in names.items()}
        for depth, names in EQUALLY.items()
    }
    beside = {
        model.label: (risks[name, model.config.task.n], comparisons[model.config.task].naive)
        for name, model in models.items()
    }
    verdicts = judge((A1,), more_heads, shared=True) | judge((A8,), beside, shared=True)
    return Result(verdicts, models, comparisons, risks, lengths)
