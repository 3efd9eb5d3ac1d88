"""What do deeper networks compute? Their answers as a few steps of one kind."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import OURS, Claim, Criterion, Judged, judge
from icl.contexts import Contexts, check, draw
from icl.experiments.comparison import REFERENCES, WALKS, Comparison, algorithm
from icl.experiments.models import BY_HEADS, EQUAL, WORKHORSE, trained
from icl.intervals import estimate, reduction, trimmed
from icl.iterations import TERMS, Iteration, fit
from icl.threads import one_thread
from icl.words import PERCENT, TIMES, lower, percent

PLANS = {BY_HEADS[depth][h]: EQUAL[BY_HEADS[depth][h]] for depth in (3, 5) for h in (1, 8)}
FITTED = 16_384  # contexts of stream `tune` that coefficients are fitted on
ITERATION = "a few steps"


@dataclass(frozen=True)
class Description:
    """How near the answers ŵ of a network are to something else: squared lengths, (M, B).

    size: |ŵ|². away: the distance to the iteration, to the nearest step of every walk, chosen for
    each seed, and to every reference.
    """

    size: Tensor
    away: dict[str, Tensor]

    def shares(self) -> dict[str, Tensor]:
        """What fraction (M,) of the answers each description leaves."""
        whole = trimmed(self.size, dim=-1)
        return {name: trimmed(away, dim=-1) / whole for name, away in self.away.items()}


def explained(found: Description) -> Tensor:
    """What fraction (M,) of the answers the iteration explains."""
    return 1 - found.shares()[ITERATION]


def lead(found: Description) -> Tensor:
    """How many times (M,) as much as the iteration the nearest step of any walk leaves."""
    shares = found.shares()
    return torch.stack([shares[walk] for walk in WALKS]).amin(dim=0) / shares[ITERATION]


C5 = Claim(
    "C5",
    OURS,
    "What a deep network answers is what a few steps of one kind answer: one for every layer, of a "
    "dozen numbers each.",
    (
        Criterion(
            "fraction of the answers that as many steps as layers explain",
            explained,
            0.95,
            "As for C3, less than a twentieth may differ.",
            (-float("inf"), 1.0),
            said="as many steps as layers explain {} of a network's answers",
            unit=PERCENT,
        ),
        Criterion(
            "what the nearest of twenty steps of any walk leaves of the answers, as a multiple of "
            "what the iteration leaves",
            lead,
            1.0,
            "Above 1 the iteration is a better description than every algorithm that claim A5 "
            "knows. It has a dozen numbers per step where a walk has one rate.",
            ratio=True,
            said="the nearest step of any algorithm leaves {} as much of the answers",
            unit=TIMES,
        ),
    ),
)
CLAIMS = (C5,)


@dataclass(frozen=True)
class Result(Judged):
    """By a network's label: how it is described, the iteration, and the risk (M, B) of both."""

    comparison: Comparison
    descriptions: dict[str, Description]
    iterations: dict[str, Iteration]
    risks: dict[str, tuple[Tensor, Tensor]]

    def plot_left(self) -> None:
        """Percentages that descriptions leave of every network's answers, a dot per seed."""
        shares = {label: found.shares() for label, found in self.descriptions.items()}
        rows, lines = (
            [
                {"panel": label, "label": name, "value": 100 * value}
                for label, found in shares.items()
                for name in names
                for value in average(found[name])
            ]
            for names, average in (
                ((ITERATION, *WALKS), Tensor.tolist),
                (REFERENCES, lambda x: [x.mean().item()]),
            )
        )
        about = "left of the answers, in %"
        figures.dots(pd.DataFrame(rows), pd.DataFrame(lines), about, limit=100.0)

    def plot_terms(self) -> None:
        """What every term adds in every step of the networks with eight heads."""
        many = [label for label in self.iterations if label.startswith("8")]
        depths = [self.iterations[label].coefficients.shape[1] for label in many]
        size = {"figsize": (figures.WIDTH, 0.34 * len(TERMS) + 1.4), "width_ratios": depths}
        _, panels = figures.subplots(1, len(many), sharey=True, **size)
        for axes, label in zip(panels, many, strict=True):
            figures.percentages(axes, self.sizes(label))
            axes.set(title=label, xlabel="step")

    def sizes(self, label: str) -> pd.DataFrame:
        """A row per term, a column per step: its root mean square with its coefficient's sign, as
        a percentage of the answers', mean over seeds.
        """
        found, whole = self.iterations[label], trimmed(self.descriptions[label].size, dim=-1)
        table = {}
        for step, (parts, _) in enumerate(found.steps(self.comparison.contexts)):
            squares = trimmed(torch.stack(parts, dim=1).square().sum(dim=-1), dim=-1)
            signed = found.coefficients[:, step].sign() * (squares / whole[:, None]).sqrt()
            table[step + 1] = 100 * signed.mean(dim=0)
        return pd.DataFrame(table, index=TERMS)

    def left(self, label: str, by: str = ITERATION) -> str:
        """What fraction of a network's answers a description leaves, mean over seeds."""
        return percent(self.descriptions[label].shares()[by].mean().item())

    def against(self, label: str) -> str:
        """By what fraction the risk of the steps is lower or higher than that of the network."""
        network, steps = self.risks[label]
        return lower(reduction(steps, network).mean().item())

    def numbers(self) -> tables.Text:
        """Risks of networks and iterations, and what all descriptions leave of the answers."""
        rows = [
            {
                "network": label,
                "risk [95 %]": estimate(risk),
                "of the steps": estimate(stepped),
            }
            | {
                name: percent(share.mean().item())
                for name, share in self.descriptions[label].shares().items()
            }
            for label, (risk, stepped) in self.risks.items()
        ]
        return tables.show(pd.DataFrame(rows))


def describe(model: Checkpoint, found: Iteration, contexts: Contexts) -> Description:
    """How near a network's answers are to an iteration, to walks, and to references."""
    answers, depth = model.model.weights(contexts), len(model.config.architecture.heads)

    def distance(u: Tensor) -> Tensor:
        return (answers - u).square().sum(dim=-1)

    away = {ITERATION: distance(found.weights(contexts))}
    for label in WALKS:
        steps = torch.stack([*map(distance, algorithm(label, WORKHORSE, depth).iterates(contexts))])
        nearest = trimmed(steps, dim=-1).argmin(dim=0)
        away[label] = steps[nearest, torch.arange(len(answers))]
    for label in REFERENCES:
        away[label] = distance(algorithm(label, WORKHORSE, depth).weights(contexts))
    return Description(answers.square().sum(dim=-1), away)


@one_thread()
def run(contexts: int, seed: int) -> Result:
    """Describe networks on so many contexts of this seed."""
    check(contexts, seed, 20)
    on, fitting = Comparison.on(WORKHORSE, contexts, seed), draw(WORKHORSE, FITTED, "tune", 1)
    descriptions, iterations, risks = {}, {}, {}
    for model in trained(PLANS, "double").values():
        answers, label = model.model.weights(fitting), model.label
        iterations[label] = fit(answers, fitting, len(model.config.architecture.heads))
        descriptions[label] = describe(model, iterations[label], on.contexts)
        risks[label] = on.risk(model.model), on.risk(iterations[label])
    return Result(judge(CLAIMS, descriptions, shared=True), on, descriptions, iterations, risks)
