"""Is a pruned model as good, layer by layer? Probes of pruned and of whole models: P-probing."""

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.claims import CHEN, Claim, Criterion, Verdict, finding
from icl.contexts import draw
from icl.errors import require
from icl.estimators import Zero
from icl.experiments.models import FULL, SINGLE_HEAD, trained
from icl.heads import mask, most_important
from icl.intervals import estimate, reduction
from icl.predictors import excess_risk
from icl.probing import probe_risks
from icl.starts import tuned_importance

# Whole models, and those of one head per layer that were trained from scratch.
PAIRS = {name: one for name, one in zip(FULL, SINGLE_HEAD, strict=True) if name != "workhorse-5"}
PLANS = {name: (FULL | SINGLE_HEAD)[name] for pair in PAIRS.items() for name in pair}
NOISES = (0.5, 1.0, 2.0)  # the models were trained at 1
FITTING = 4096  # contexts of stream `tune` that probes are fitted on


class Probes(NamedTuple):
    """Risks (M, L, B) of probes after every layer: of a model whole, pruned, and of one head.

    Pruned it has its most important head in every later layer, or `reverse`, in the first; `zero`
    is the risk (B,) of answering zero.
    """

    zero: Tensor
    full: Tensor
    pruned: Tensor
    reverse: Tensor
    single: Tensor


def gained(probes: Probes) -> dict[str, Tensor]:
    """By what fraction (M,) the whole model's probes after later layers are below zero's risk."""
    return _by_layer(reduction(probes.full, probes.zero))


def kept(probes: Probes) -> dict[str, Tensor]:
    """The share (M,) of that which the pruned model's probes have as well."""
    return _by_layer(reduction(probes.pruned, probes.zero) / reduction(probes.full, probes.zero))


def _by_layer(values: Tensor) -> dict[str, Tensor]:
    """Columns (M,) of what layers have, (M, L), without the first, which pruning leaves whole."""
    return {f"layer {i}": column for i, column in enumerate(values.unbind(dim=1)[1:], 2)}


A4P = Claim(
    "A4p",
    CHEN,
    "Probed after every layer, a model pruned to one head per later layer is close to the whole.",
    (
        Criterion(
            "reduction of the risk of the whole model's probes below that of answering zero, as a "
            "fraction, after every later layer",
            gained,
            0.0,
            "Only of a gain can a share be kept.",
            (-math.inf, 1.0),
        ),
        Criterion(
            "share of that reduction which the pruned model's probes keep, after every later layer",
            kept,
            0.9,
            "The paper calls the two performances close; a tenth is as much as may be lost. The "
            "layers are judged one by one, with intervals so wide that all hold at once.",
        ),
    ),
)
CLAIMS = (A4P,)


@dataclass(frozen=True)
class Result:
    """Probes' risks by setting, a model at a noise, and the verdict."""

    verdict: Verdict
    probes: dict[str, Probes]

    @property
    def finding(self) -> tables.Text:
        """The verdict in a sentence."""
        return finding([self.verdict])

    def plot_probes(self) -> None:
        """Risk of the probe after every layer, a panel per setting."""
        names = {
            "all heads": "full",
            "one head in later layers": "pruned",
            "one head in layer 1": "reverse",
            "one head, from scratch": "single",
        }
        rows = [
            {"panel": setting, "label": label, "layer": layer, **vars(estimate(risk))}
            for setting, probes in self.probes.items()
            for label, name in names.items()
            for layer, risk in enumerate(getattr(probes, name).unbind(dim=1), 1)
        ]
        figures.curves(pd.DataFrame(rows), "layer", "layer")

    def numbers(self) -> tables.Text:
        """All risks of probes, and the share of the whole model's gain that is kept."""
        rows = [
            {"setting": setting, "layer": layer}
            | {
                name: estimate(getattr(probes, name)[:, layer - 1])
                for name in ("full", "pruned", "reverse", "single")
            }
            for setting, probes in self.probes.items()
            for layer in range(1, probes.full.shape[1] + 1)
        ]
        return tables.show(pd.DataFrame(rows))


def run(contexts: int, seed: int) -> Result:
    """Probe all models on so many evaluation contexts of this seed."""
    require(contexts >= 2, f"contexts={contexts}: allowed are 2 and more")
    models = trained(PLANS)
    probes = {
        f"{models[whole].label}, noise {noise:g}": probed(
            models[whole], models[one], noise, contexts, seed
        )
        for (whole, one), noise in product(PAIRS.items(), NOISES)
    }
    return Result(A4P.judge(probes, shared=True), probes)


def probed(whole: Checkpoint, single: Checkpoint, noise: float, contexts: int, seed: int) -> Probes:
    """Fit probes after every layer on stream `tune`, at this noise, and judge them."""
    task = replace(whole.config.task, noise=noise)
    fitting = draw(task, FITTING, "tune", seed=1)  # heads are chosen on seed 0
    fresh = draw(task, contexts, "evaluate", seed)
    many, *later = whole.config.architecture.heads
    kept = [(many, *[1] * len(later)), (1, *later)]
    importance = tuned_importance(whole.name)
    pruned = [mask(whole.model, most_important(importance, counts)) for counts in kept]
    risks = [
        probe_risks(model, fitting, fresh)[:, 1:] for model in (whole.model, *pruned, single.model)
    ]
    return Probes(excess_risk(Zero(), fresh), *risks)
