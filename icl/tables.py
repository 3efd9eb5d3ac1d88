"""Sentences and tables of the chapters, as Markdown: no number is typed by hand."""

import torch

from icl import comparisons
from icl.checkpoints import Checkpoint
from icl.contexts import Contexts
from icl.heads import AVERAGES, Importance
from icl.markdown import table
from icl.predictors import LinearPredictor
from icl.risk import Estimate, compare, excess_risk, over_seeds, summarise
from icl.verdicts import CONDITIONAL, REPRODUCED, Verdict

NAMED = 4  # settings a sentence can hold; of more, it gives the lowest and the highest


def finding(verdicts: list[Verdict]) -> str:
    """One sentence per verdict, with the numbers of the criterion that decides it."""
    sentences = []
    for verdict in verdicts:
        claim = verdict.claim
        failed = [f.criterion for f in verdict.findings if f.decision != REPRODUCED]
        criterion = min(failed, key=claim.criteria.index, default=claim.criteria[0])
        found = sorted(verdict.of(criterion), key=lambda f: f.estimate.mean)
        if len(found) > NAMED:
            found = [found[0], found[-1]]
            link = " to "
        else:
            link = "; "
        numbers = link.join(f"{f.estimate} (`{f.setting}`)" for f in found)
        conditions = ", ".join(f"`{name}`" for name in verdict.conditions)
        where = f" ({conditions})" if verdict.outcome == CONDITIONAL else ""
        sentences.append(
            f"**{claim.id}, {verdict.outcome}{where}:** “{claim.statement}” The "
            f"{criterion.statistic} is {numbers}, mean over seeds with 95 % interval; needed: "
            f"above {criterion.threshold:g}."
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


def contests(found: dict[str, dict[str, torch.Tensor]]) -> str:
    """Claim A7 in every setting: risks, medians, and paired differences over repetitions."""
    rows = []
    for setting, risks in found.items():
        better = comparisons.better_baseline(risks)
        for name in (comparisons.PREPROCESSED, comparisons.FIXED):
            if name in risks:
                rows.append(
                    [
                        f"`{setting}`",
                        "fixed" if name == comparisons.FIXED else "relative",
                        f"{better.mean():.3f}, {better.median():.3f}",
                        f"{risks[name].mean():.3g}, {risks[name].median():.3f}",
                        over_seeds((risks[name] - better).mean(dim=-1)),
                    ]
                )
    return table(
        [
            "setting",
            "rate",
            "better of GD and ridge: mean, median",
            "preprocessed GD: mean, median",
            "paired difference of means [95 %]",
        ],
        rows,
    )


def learning_curves(slopes: dict[str, Estimate], found: dict[float, dict]) -> str:
    """Slope of the log risk in log n, and the mean risk at both ends of the range."""
    first, *_, last = found
    rows = [
        [name, slope, *(f"{found[n][name].mean():.4f}" for n in (first, last))]
        for name, slope in slopes.items()
    ]
    return table(["predictor", "log-log slope [95 %]", f"risk, n={first}", f"n={last}"], rows)
