"""Text that is generated from results and settings, as Markdown: nothing is typed by hand."""

from importlib.metadata import version
from time import gmtime, strftime

import torch

from icl.checkpoints import Checkpoint, catalogue, load
from icl.claims import Verdict
from icl.contexts import Contexts
from icl.heads import AVERAGES, Importance
from icl.markdown import table
from icl.predictors import LinearPredictor
from icl.risk import compare, excess_risk, over_seeds, summarise
from icl.sweeps import EXPERIMENTS

STACK = ("torch", "numpy", "scikit-learn", "matplotlib", "papermill", "jupyter-book")


def scorecard(found: list[tuple[str, dict]]) -> str:
    """Every claim the chapters judged: (chapter, verdict) pairs to one table."""
    rows = []
    for chapter, verdict in found:
        claim = [
            f"[{verdict['id']}]({chapter})",
            f"{verdict['statement']} ({verdict['paper']})",
            f"**{verdict['outcome']}**",
        ]
        for criterion in verdict["criteria"]:
            numbers = [f"`{name}` {value}" for name, value in criterion["settings"].items()]
            needed = f"{criterion['statistic']}, above {criterion['threshold']:g}"
            rows.append([*claim, needed, "<br>".join(numbers)])
            claim = ["", "", ""]  # said once, above the claim's other criteria
    return table(["claim", "what it says", "verdict", "needed", "mean over seeds [95 %]"], rows)


def runs(executed: dict[str, dict]) -> str:
    """How and when every chapter was executed."""
    rows = []
    for name, about in executed.items():
        parameters = ", ".join(f"`{k}={v}`" for k, v in about["parameters"].items())
        rows.append([f"[{name}]({name})", f"{about['seconds']:.0f} s", about["when"], parameters])
    return table(["chapter", "time", "executed", "parameters"], rows)


def models() -> str:
    """Every trained model that ships, and what it cost."""
    rows = []
    for name in catalogue():
        model = load(name)
        recipe, seconds = model.config.recipe, model.seconds
        risks = model.risks
        rows.append(
            [
                f"`{name}`",
                f"`{model.config.hash}`",
                ", ".join(map(str, model.seeds)),
                f"{recipe.steps} × {recipe.batch}",
                strftime("%H:%M:%S", gmtime(seconds)),
                f"{risks.mean():.3f} ({risks.min():.3f} to {risks.max():.3f})",
                model.versions["torch"],
            ]
        )
    header = ["model", "configuration", "seeds", "steps × contexts", "trained in"]
    return table([*header, "excess risk (range)", "torch"], rows)


def versions() -> str:
    """Versions of the packages this site was built with."""
    return table(["package", "version"], [[name, version(name)] for name in STACK])


def settings() -> str:
    """Every setting of every experiment, and whether a paper or this book chose it."""
    ours, paper = "our choice", "paper"
    same = len(EXPERIMENTS) * ["same"]
    rows = [
        ["sparse linear regression", *same, paper],
        ["Gaussian features and noise", *same, ours],
        ["multi-head attention, several layers", *same, paper],
        ["linear attention, no MLP, no normalisation", *same, ours],
        ["Adam, warm-up, then a cosine to zero; gradients clipped per model", *same, ours],
        ["loss: excess risk, its query expectation in closed form", *same, ours],
    ]
    configs = [experiment.config.to_dict() for experiment in EXPERIMENTS.values()]
    for part in configs[0]:
        for name in configs[0][part]:
            values = [_plain(config[part][name]) for config in configs]
            rows.append([f"{part}: `{name}`", *values, ours])
    seeds = [_plain(experiment.seeds) for experiment in EXPERIMENTS.values()]
    rows.append(["training seeds", *seeds, ours])
    return table(["setting", *(f"`{name}`" for name in EXPERIMENTS), "chosen by"], rows)


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "identity"
    return str(value)


def finding(verdicts: list[Verdict]) -> str:
    """One sentence per verdict, with its deciding numbers."""
    sentences = []
    for verdict in verdicts:
        name = verdict.claim.criteria[0].statistic
        numbers = [f"{row[0]} {row[2]}" for row in verdict.rows if row[1] == name]
        sentences.append(
            f"**{verdict.claim.id}, {verdict.outcome}:** “{verdict.claim.statement}” The {name} "
            f"is {'; '.join(numbers)} (mean over seeds [95 %]; needed: above "
            f"{verdict.claim.criteria[0].threshold:g})."
        )
    return "\n\n".join(sentences)


def standings(
    models: dict[str, Checkpoint],
    batches: dict[str, Contexts],
    baselines: dict[str, dict[str, LinearPredictor]],
) -> str:
    """Risk of every model, over its seeds, beside its baselines' on the same contexts."""
    rows = []
    for name, checkpoint in models.items():
        contexts = batches[name]
        risks = excess_risk(checkpoint.model, contexts)
        medians = risks.median(dim=-1).values
        rows.append([f"`{name}`", over_seeds(risks.mean(dim=-1)), f"{medians.mean():.3f}", ""])
        for baseline, predictor in baselines[name].items():
            risk = excess_risk(predictor, contexts)
            summary = summarise(risk)
            difference = compare(risks.mean(dim=0), risk)
            rows.append([baseline, summary, f"{summary.median:.3f}", difference])
    return table(
        ["predictor", "mean excess risk [95 %]", "median", "model minus this one, paired [95 %]"],
        rows,
    )


def fragility(found: dict[str, Importance]) -> str:
    """The smallest and largest relative rise in every layer, each the median over seeds."""
    depth = max(i.rise.shape[1] for i in found.values())
    rows = []
    for name, importance in found.items():
        rises = importance.relative
        ends = rises.nan_to_num(torch.inf).amin(dim=-1), rises.nan_to_num(-1).amax(dim=-1)
        low, high = (end.median(dim=0).values.tolist() for end in ends)
        cells = [f"{a + 0:.2g} to {b:.2g}" for a, b in zip(low, high, strict=True)]
        rows.append([f"`{name}`", *cells, *[""] * (depth - len(cells))])
    return table(["model", *(f"layer {layer + 1}" for layer in range(depth))], rows)


def robustness(by_fill: dict[str, dict[str, Importance]]) -> str:
    """The deciding statistics under every way to mask a head and to average over contexts."""
    rows = []
    for fill, found in by_fill.items():
        for average in AVERAGES:
            for name, importance in found.items():
                i = importance.by(average)
                statistics = (
                    i.smallest_first,
                    i.shares[:, 0].amin(dim=-1),
                    i.top_later,
                    i.contrast,
                )
                rows.append([f"`{name}`", fill, average, *map(over_seeds, statistics)])
    return table(
        [
            "model",
            "masked head puts out",
            "average over contexts",
            "smallest relative rise, layer 1",
            "smallest share, layer 1",
            "smallest top share, later layers",
            "entropy contrast",
        ],
        rows,
    )
