"""What do trained networks compute? Their answers as coefficients of equivariant monomials."""

from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import OURS, Claim, Criterion, Judged, judge
from icl.contexts import Contexts, check, draw
from icl.experiments.comparison import Comparison
from icl.experiments.models import BY_HEADS, EQUAL, WORKHORSE, trained
from icl.intervals import estimate, over_contexts, over_seeds, trimmed
from icl.moments import length, needed, optimum, sizes
from icl.polynomials import Polynomial, monomials, project
from icl.predictors import excess_risk, squared_error
from icl.symmetry import Symmetrised, averages
from icl.threads import one_thread
from icl.words import FALL, PERCENT

DEGREE = 4  # of the answers of two layers
MONOMIALS = monomials(DEGREE)
NAMES = [str(m) for m in MONOMIALS]
SHALLOW = {BY_HEADS[depth][h]: depth for depth, h in ((1, 1), (1, 8), (2, 1), (2, 4), (2, 8))}
DEEP = {BY_HEADS[depth][h]: depth for depth, h in ((3, 1), (3, 8), (5, 1), (5, 8))}
MANY = [BY_HEADS[depth][8] for depth in (2, 3, 5)]  # what is averaged over permutations
PLANS = {name: EQUAL[name] for name in SHALLOW | DEEP}
FITTING = 16_384  # contexts of stream `tune` that coefficients are fitted on
JUDGED = 8  # signed permutations that the claim is judged on
AVERAGED = (1, 2, 8, 32, 128)  # and that are shown, on fewer contexts
SHOWN = 10  # monomials in the figure


@dataclass(frozen=True)
class Reading:
    """A network's risk (M, B), its answers as a polynomial, and what that answers.

    own: the polynomial's risk (M, B). size: the squared length (M, B) of its answers.
    left: squared distance of the network's answers from them. away: that of the mean polynomial of
    the other seeds.
    """

    risk: Tensor
    polynomial: Polynomial
    own: Tensor
    size: Tensor
    left: Tensor
    away: Tensor


def missed(found: Reading) -> Tensor:
    """Mean square (M,) of what the polynomial leaves of the answers, as a multiple of the risk."""
    return trimmed(found.left, dim=-1) / trimmed(found.risk, dim=-1)


def agreement(found: Reading) -> Tensor:
    """What fraction (M,) of a seed's polynomial that of the other seeds explains."""
    return 1 - trimmed(found.away, dim=-1) / trimmed(found.size, dim=-1)


def spread(found: Reading) -> Tensor:
    """Minus the largest difference (M,) of a term from the mean of the other seeds'.

    Terms are compared by their exact root mean squares, with signs, as shares of the answers'.
    """
    term = sizes(WORKHORSE, found.polynomial)
    others = (term.sum(dim=0) - term) / (len(term) - 1)
    return -(term - others).abs().amax(dim=-1) / length(WORKHORSE, found.polynomial)


# Risks (M, B) of a network and of its average over permutations, and Bayes' (B,).
Averaged = tuple[Tensor, Tensor, Tensor]


def closed(found: Averaged) -> Tensor:
    """What share (M,) of a network's distance to Bayes an average over all permutations takes away.

    An average over k of them leaves a k-th of what differs between them, so k / (k − 1) of what it
    takes away is what all together would.
    """
    network, average, bayes = (trimmed(risk, dim=-1) for risk in found)
    return JUDGED / (JUDGED - 1) * (network - average) / (network - bayes)


C3 = Claim(
    "C3",
    OURS,
    "All seeds of a network compute the same polynomial.",
    (
        Criterion(
            "fraction of a seed's polynomial that the mean of the other seeds' explains",
            agreement,
            0.95,
            "Less than a twentieth may differ. It is a test of answers, which are mostly those of "
            "gradient descent; the next is one of what they are made of.",
            (-float("inf"), 1.0),
            said="the other seeds' mean polynomial explains {} of a seed's",
            unit=PERCENT,
        ),
        Criterion(
            "largest difference of a term from the mean of the other seeds', as a share of the "
            "answers' root mean square, negated",
            spread,
            -0.1,
            "The same coefficients, and not only nearly the same answers: no term may be larger or "
            "smaller by a tenth of the answers' size.",
            (-float("inf"), 0.0),
            said="a term differs from the other seeds' mean by up to {} of the size of the answers",
            unit=FALL,
        ),
    ),
)
C4 = Claim(
    "C4",
    OURS,
    "What a network misses is mostly asymmetry: an average over signed permutations of the "
    "features takes away half of its distance to Bayes.",
    (
        Criterion(
            "share of the distance to Bayes' risk that an average over all permutations takes away",
            closed,
            0.5,
            "Above one half, most of the distance is asymmetry, which no task asks for. What all "
            f"would take away follows from {JUDGED}: an average over k leaves a k-th of what "
            "differs.",
            (-float("inf"), 1.0),
            said="all permutations together would take away {} of the distance to Bayes",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = (C3, C4)


def read(model: Checkpoint, fitting: Contexts, contexts: Contexts) -> Reading:
    """Fit the coefficients of a network's answers on some contexts, and judge them on others."""
    found = project(model.model.weights(fitting), MONOMIALS, fitting)
    answers, mine = model.model.weights(contexts), found.weights(contexts)
    others = (mine.sum(dim=0) - mine) / (len(mine) - 1)
    return Reading(
        squared_error(answers, contexts),
        found,
        squared_error(mine, contexts),
        mine.square().sum(dim=-1),
        (answers - mine).square().sum(dim=-1),
        (others - mine).square().sum(dim=-1),
    )


@dataclass(frozen=True)
class Result(Judged):
    """Readings of networks by name; risks of averages over permutations, by name and count.

    bayes: (B,) Bayes' risk on the contexts of these averages.
    """

    models: dict[str, Checkpoint]
    readings: dict[str, Reading]
    averages: dict[str, dict[int, Tensor]]
    bayes: Tensor

    def plot_terms(self) -> None:
        """The sizes of the largest terms, a dot per seed coloured by its risk; the optimum's."""
        best = sizes(WORKHORSE, optimum(WORKHORSE, MONOMIALS))
        order = best.abs().argsort(descending=True)[:SHOWN]
        names = [name for name, depth in SHALLOW.items() if depth == 2]
        size = figures.WIDTH, 0.28 * SHOWN * len(names) + 1.6
        fig, panels = figures.subplots(len(names), 1, figsize=size, sharex=True)
        risks = {name: trimmed(self.readings[name].risk, dim=-1) for name in names}
        known = torch.cat([*risks.values()])
        look = {"cmap": figures.HUES, "vmin": known.min(), "vmax": known.max()}
        for axes, name in zip(panels, names, strict=True):
            found = sizes(WORKHORSE, self.readings[name].polynomial)[:, order]
            for row in range(SHOWN):
                dots = axes.scatter(found[:, row], [row] * len(found), c=risks[name], **look)
            (cross,) = axes.plot(best[order], range(SHOWN), "x", color="black")
            axes.set_yticks(range(SHOWN), [NAMES[i] for i in order])
            axes.invert_yaxis()
            axes.set_title(self.models[name].label)
        axes.set_xlabel("root mean square of the term, with its sign")
        fig.colorbar(dots, ax=panels, label="risk of the network", shrink=0.5)
        figures.key(fig, {"optimum of degree 4": cross})

    def terms(self) -> tables.Text:
        """By what the polynomial's mean risk rises without a monomial; the most needed ones."""
        best = needed(WORKHORSE, optimum(WORKHORSE, MONOMIALS))
        two = {k: found for k, found in self.readings.items() if SHALLOW.get(k) == 2}
        rises = {
            self.models[k].label: needed(WORKHORSE, found.polynomial) for k, found in two.items()
        }
        rows = [
            {"without": NAMES[i], "optimum of degree 4": f"{best[i]:.4f}"}
            | {label: tables.ranged(rise[:, i], 4) for label, rise in rises.items()}
            for i in best.argsort(descending=True)[:SHOWN]
        ]
        return tables.show(pd.DataFrame(rows))

    def shares(self) -> tables.Text:
        """Risks of networks and of their polynomials, and what of the answers these leave."""
        rows = []
        for name, found in self.readings.items():
            left = over_seeds(missed(found), variance=over_contexts(missed, found).item())
            rows.append(
                {
                    "network": self.models[name].label,
                    "risk": estimate(found.risk),
                    "risk of its polynomial of degree 4": estimate(found.own),
                    "what that leaves, per risk": left,
                }
            )
        return tables.show(pd.DataFrame(rows))

    def plot_averages(self) -> None:
        """Risk of averages over permutations, as multiples of Bayes'."""
        bayes = trimmed(self.bayes, dim=-1)
        rows = [
            {"panel": "", "label": self.models[name].label, "count": count}
            | vars(estimate(risk / bayes))
            for name, found in self.averages.items()
            for count, risk in found.items()
        ]
        figures.curves(pd.DataFrame(rows), "count", "signed permutations", "risk / Bayes'", "xy")


@one_thread()
def run(contexts: int, seed: int) -> Result:
    """Read networks on so many contexts of this seed.

    Averages over eight permutations are judged on a quarter of the contexts, and those over up to
    128 shown on a 32nd of them.
    """
    check(contexts, seed, 64)
    models = trained(PLANS, "double")
    on = Comparison.on(WORKHORSE, contexts, seed)
    fitting = draw(WORKHORSE, FITTING, "tune", 1)  # baselines are tuned on seed 0
    readings = {name: read(model, fitting, on.contexts) for name, model in models.items()}
    alike = {models[k].label: readings[k] for k in SHALLOW}
    quarter, few, bayes = contexts // 4, contexts // 32, on.baselines["Bayes"]
    symmetric, shown = {}, {}
    for name in MANY:
        model, label = models[name].model, models[name].label
        average = excess_risk(Symmetrised(model, JUDGED), on.contexts[:quarter])
        symmetric[label] = readings[name].risk[:, :quarter], average, bayes[:quarter]
        found = averages(model, on.contexts[:few], AVERAGED)
        shown[name] = {k: squared_error(w, on.contexts[:few]) for k, w in found.items()}
    verdicts = judge((C3,), alike, shared=True) | judge((C4,), symmetric, shared=True)
    return Result(verdicts, models, readings, shown, bayes[:few])
