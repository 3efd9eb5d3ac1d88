"""Why one head? What a head costs, and whether decay undoes a step that is split over heads."""

from dataclasses import replace

from torch import Tensor

from icl.claims import AFTER_CHEN, Claim, Criterion
from icl.configuration import USUAL, Configuration, Plan, Split
from icl.experiments.models import DENSE, EQUAL, FULL, workhorse
from icl.tasks import SparseLinear
from icl.transformer import Architecture

DECAYS = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
JUDGED = (1e-4, 1e-3, 1e-2)  # decays of the settings that the claim is judged in
SPARSE = SparseLinear(d=8, s=1, n=32, noise=0.5, values="sphere")
LOOKS = (300, 600, 1_000, 2_000)  # steps after which weights are kept
# What is split: Algorithm 1 with two steps of the fixed rate that is best on stream `tune`, and,
# where nothing is better than one step of gradient descent, that step with its optimal rate.
STARTS = {
    "Algorithm 1": (SPARSE, Architecture(8, (8, 4, 4), 9, 18), Split(0.298)),
    "one step": (DENSE, Architecture(8, (4,), 9, 10), Split(32 / 42)),
}
FILES = {"Algorithm 1": "split-844", "one step": "split-4"}
SPLIT = {
    f"{FILES[name]}-{decay:g}": Plan(
        Configuration(task, model, replace(USUAL["split"], weight_decay=decay), split=split),
        snapshots=LOOKS,
    )
    for name, (task, model, split) in STARTS.items()
    for decay in DECAYS
}
# Models that started from drawn weights, without decay and with more of it.
DRAWN = {
    "heads-4-3": EQUAL["heads-4-3"],
    "decay-0.0003-k9-3-14000": workhorse(4, 4, 4, weight_decay=3e-4),
    "decay-0.0006-k9-3-14000": workhorse(4, 4, 4, weight_decay=6e-4),
    "workhorse-3": FULL["workhorse-3"],
    "workhorse-3-decay": workhorse(8, 8, 8, weight_decay=3e-4),
}
PLANS = SPLIT | DRAWN

# Costs (M, H) of the heads of every layer that takes a step, by its name.
Costs = dict[str, Tensor]


def top(pair: tuple[Costs, Costs]) -> dict[str, Tensor]:
    """The share of the costliest head in the cost of its layer, (M,); of the first of a pair."""
    return {layer: cost.amax(dim=1) / cost.sum(dim=1) for layer, cost in pair[0].items()}


def growth(pair: tuple[Costs, Costs]) -> dict[str, Tensor]:
    """By how much that share is larger in the first of a pair, with decay, than without it."""
    without = top(pair[::-1])
    return {layer: share - without[layer] for layer, share in top(pair).items()}


A18 = Claim(
    "A18",
    AFTER_CHEN,
    "Under weight decay a step that is split over heads returns to one head, and without it stays "
    "split.",
    (
        Criterion(
            "share of the costliest head in the cost of every layer that takes a step, with decay",
            top,
            0.9,
            "A head that takes a fraction α of a step costs as √α. So at nine tenths of the cost "
            "one head takes all of the step but 1.3 % at most; split at random it has about two "
            "fifths.",
            (0.0, 1.0),
        ),
        Criterion(
            "the same share with decay minus that of the same seeds without",
            growth,
            0.0,
            "Above zero it is decay that merges heads, and not training alone.",
            (-1.0, 1.0),
        ),
    ),
)
CLAIMS = (A18,)
