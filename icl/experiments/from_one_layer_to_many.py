"""What lies between one layer and many? Models of one to five layers beside the algorithms."""

from dataclasses import dataclass

import pandas as pd
from torch import Tensor

from icl import figures, tables
from icl.checkpoints import Checkpoint
from icl.contexts import check
from icl.estimators import ESTIMATORS
from icl.experiments.comparison import Comparison, gain
from icl.experiments.models import BY_HEADS, EQUAL, WORKHORSE, trained_families
from icl.intervals import Estimate, estimate, over_contexts, over_seeds
from icl.one_layer import distance, effective_step, excess, optimal_one_step

PLANS = EQUAL
FAMILIES = {
    depth: {h: (name, EQUAL[name]) for h, name in names.items()}
    for depth, names in BY_HEADS.items()
}
CLAIMS = ()
DEPTHS = tuple(BY_HEADS)
# Layers that an algorithm spends on preprocessing; every step takes one more.
ALGORITHMS = {"GD": 0, "preprocessed GD": 1, "re-weighted GD": 1}
ONE_STEP = "one step (Γ*)"


@dataclass(frozen=True)
class Result:
    """Excess risks of models (M, B) and the best step (B,); those of algorithms, by layers."""

    comparison: Comparison
    models: dict[str, Checkpoint]
    risks: dict[str, Tensor]
    one_step: Tensor
    algorithms: pd.DataFrame

    @property
    def finding(self) -> tables.Text:
        """What heads gain at which depth."""
        one, eight = (estimate(self.risks[BY_HEADS[1][h]]) for h in (1, 8))
        best, gains = estimate(self.one_step), {depth: self.gain(depth) for depth in (1, 2, 5)}
        return tables.Text(
            "**One layer takes the one step, whatever its heads; with more layers the heads "
            f"matter.** With one layer the risk is {one} for one head and {eight} for "
            f"eight; the optimal step has {best}. With eight heads instead of one the risk is "
            f"lower by the fraction {gains[1]} with one layer, {gains[2]} with two and {gains[5]} "
            "with five (means over seeds with 95 % intervals)."
        )

    def gain(self, depth: int) -> Estimate:
        """By what fraction the risk of eight heads is below that of one."""
        risks = {h: self.risks[name] for h, name in BY_HEADS[depth].items()}
        return over_seeds(gain(risks), variance=over_contexts(gain, risks).item())

    def by_heads(self, average: str = "trimmed") -> pd.DataFrame:
        """Every model's average risk, by layers and heads per layer."""
        rows = [
            {"layers": depth, "label": f"h = {h}", **vars(estimate(self.risks[name], average))}
            for depth, names in BY_HEADS.items()
            for h, name in names.items()
        ]
        return pd.DataFrame(rows)

    def plot_depth(self) -> None:
        """Risks against the number of layers, of models and of algorithms."""
        one_step = {"label": ONE_STEP, "layers": 1, **vars(estimate(self.one_step))}
        levels = [
            {"label": name, "layers": depth, **vars(estimate(self.comparison.baselines[name]))}
            for name in ("ridge", "Bayes")
            for depth in DEPTHS
        ]
        shared = pd.DataFrame([one_step, *levels])
        panels = {
            "trained, h heads per layer": self.by_heads(),
            "algorithms, one step per layer": self.algorithms,
        }
        lines = [pd.concat([own, shared]).assign(panel=title) for title, own in panels.items()]
        figures.curves(pd.concat(lines), "layers", "layers")

    def one_layer(self) -> tables.Text:
        """How far single layers are from the best step, and from the least risk."""
        best, contexts = optimal_one_step(WORKHORSE), self.comparison.contexts
        layers = {h: self.models[name].model for h, name in BY_HEADS[1].items()}
        rows = [
            {
                "heads": h,
                "distance to Γ*": over_seeds(distance(effective_step(layer), best)),
                "excess of the risk": over_seeds(1e4 * excess(layer, contexts)),
            }
            for h, layer in layers.items()
        ]
        return tables.show(pd.DataFrame(rows))

    def numbers(self) -> tables.Text:
        """Risks by layers and heads, and what eight heads gain over one."""
        gains = [{"layers": d, "label": "8 against 1", **vars(self.gain(d))} for d in DEPTHS]
        return tables.grid(pd.concat([self.by_heads(), pd.DataFrame(gains)]), "layers", "label")

    def by_average(self, average: str) -> tables.Text:
        """Plain mean or median risks by layers and heads."""
        return tables.grid(self.by_heads(average), "layers", "label")


def run(contexts: int, seed: int) -> Result:
    """Compare models and algorithms on so many evaluation contexts of this seed."""
    check(contexts, seed)
    comparison = Comparison.on(WORKHORSE, contexts, seed)
    families = trained_families(FAMILIES)
    models = {x.name: x for family in families.values() for x in family.values()}
    risks = {name: comparison.risk(model.model) for name, model in models.items()}
    one_step = comparison.risk(ESTIMATORS[ONE_STEP].tuned(WORKHORSE))
    return Result(comparison, models, risks, one_step, algorithms(comparison))


def algorithms(comparison: Comparison) -> pd.DataFrame:
    """Risk of every algorithm by layers, its rate tuned for so many steps."""
    rows = []
    for label, before in ALGORITHMS.items():
        for layers in range(before + 1, max(DEPTHS) + 1):
            algorithm = ESTIMATORS[label].tuned(WORKHORSE, steps=layers - before)
            risk = estimate(comparison.risk(algorithm))
            rows.append({"label": label, "layers": layers, **vars(risk)})
    return pd.DataFrame(rows)
