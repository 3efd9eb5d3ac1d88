"""Does a layer take the same step where the labels are not linear in the features?"""

from dataclasses import dataclass

import pandas as pd

from icl import figures, tables
from icl.claims import MAHANKALI, Claim, Judged, judge
from icl.contexts import check, draw
from icl.experiments.comparison import AT_OPTIMUM, LEAST_RISK, Layer, rates
from icl.experiments.models import single_layer, trained
from icl.intervals import over_seeds
from icl.one_layer import distance, effective_step, excess, optimal_one_step, rate
from icl.tasks import RESPONSES, Nonlinear

PLANS = {f"response-{family}": single_layer(Nonlinear(8, 32, 0.5, family)) for family in RESPONSES}

B3 = Claim(
    "B3",
    MAHANKALI,
    "With nonlinear responses the trained layer still takes one step of gradient descent.",
    (AT_OPTIMUM, LEAST_RISK),
)
CLAIMS = (B3,)

LEAST_SHARE = 0.01  # of the response that is linear; below, it is 0 but for rounding


@dataclass(frozen=True)
class Result(Judged):
    """Trained layers with their contexts, by family of responses, and the verdict.

    linear, unrelated: the families with and without a linear part.
    """

    linear: dict[str, Layer]
    unrelated: dict[str, Layer]

    def plot_rates(self) -> None:
        """The trained rates against the formula's, a mark per family."""
        found = rates((self.linear | self.unrelated).items())
        figures.against(found, "rate η of the formula", "rate η of the trained layers")

    def plot_matrices(self) -> None:
        """Γ of the families with a linear part, means over seeds."""
        means = {
            family: effective_step(model).mean(dim=0).numpy()
            for family, (model, _) in self.linear.items()
        }
        first, second = list(means.items())[:3], list(means.items())[3:]
        figures.matrices([("", dict(first)), ("", dict(second))])

    def silence(self) -> tables.Text:
        """What is left of layers that can only answer 0: the largest of all seeds."""
        rows = []
        for family, (model, contexts) in self.unrelated.items():
            answer = model.weights(contexts).square().sum(dim=-1).mean(dim=-1).max()
            rows.append(
                {
                    "family": f"`{family}`",
                    "largest norm of Γ, five seeds": f"{size((model, contexts)):.1e}",
                    "largest mean square of an answer": f"{answer:.1e}",
                }
            )
        return tables.show(pd.DataFrame(rows))

    def numbers(self) -> tables.Text:
        """Rates, distances and risks of all families with a linear part."""
        rows = []
        for family, (model, contexts) in self.linear.items():
            best, gamma = optimal_one_step(contexts.task), effective_step(model)
            rows.append(
                {
                    "family": f"`{family}`",
                    "linear share": f"{contexts.task.linear_share:.3f}",
                    "η of the formula": f"{best[0, 0]:.3f}",
                    "η, trained": over_seeds(rate(gamma)),
                    "distance to ηI": over_seeds(distance(gamma, best)),
                    "excess of the risk": over_seeds(1e4 * excess(model, contexts)),
                }
            )
        return tables.show(pd.DataFrame(rows))


def size(layer: Layer) -> float:
    """Norm of Γ, the largest of all seeds."""
    return effective_step(layer[0]).norm(dim=(-2, -1)).max().item()


def has_linear_part(layer: Layer) -> bool:
    """Can a linear answer explain part of the responses?"""
    return layer[1].task.linear_share > LEAST_SHARE


def run(contexts: int, seed: int) -> Result:
    """Judge the layers by so many evaluation contexts of this seed."""
    check(contexts, seed)
    layers = {}
    for found in trained(PLANS).values():
        task = found.config.task
        layers[task.family] = found.model, draw(task, contexts, "evaluate", seed)
    linear = {family: layer for family, layer in layers.items() if has_linear_part(layer)}
    unrelated = {family: layer for family, layer in layers.items() if family not in linear}
    return Result(judge(CLAIMS, linear, shared=True), linear, unrelated)
