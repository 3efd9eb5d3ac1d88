"""Sentences and tables of the chapters, as Markdown: no number is typed by hand."""

import torch

from icl import contests
from icl.checkpoints import Checkpoint
from icl.comparison import Comparison
from icl.heads import Importance
from icl.markdown import table
from icl.probing import AVERAGES as TRIMS
from icl.probing import Study
from icl.risk import AVERAGES, Estimate, compare, estimate, excess_risk, over_seeds, summarise
from icl.verdicts import Verdict


def finding(verdicts: list[Verdict]) -> str:
    """One sentence per verdict, with the numbers of the criterion that decides it."""
    sentences = []
    for verdict in verdicts:
        claim, criterion = verdict.claim, verdict.deciding
        sentences.append(
            f"**{claim.id}, {verdict.headline}:** “{claim.statement}” The {criterion.statistic} is "
            f"{verdict.numbers(criterion)}, mean over seeds with 95 % interval; needed: above "
            f"{criterion.threshold:g}."
        )
    return "\n\n".join(sentences)


def grid(corner: str, cells: dict[str, dict[str, Estimate]]) -> str:
    """A table of estimates, row by row; a column that a row lacks stays empty."""
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [[name, *(row.get(column, "") for column in columns)] for name, row in cells.items()]
    return table([corner, *columns], rows)


def standings(models: dict[str, Checkpoint], fields: dict[str, Comparison]) -> str:
    """Risk of every model, over its seeds, and of the baselines on the same contexts."""
    rows = []
    for task in dict.fromkeys(fields[name].contexts.task for name in models):
        names = [name for name in models if fields[name].contexts.task == task]
        risks = {name: fields[name].risk(models[name].model) for name in names}
        for name, risk in fields[names[0]].baselines.items():
            median = f"{risk.median():.3f}"
            rows.append([name, f"{task.d}", f"{task.n}", summarise(risk), median, ""])
        bayes = fields[names[0]].baselines["Bayes"]
        for name, risk in risks.items():
            median = f"{risk.median(dim=-1).values.mean():.3f}"
            above = compare(risk.mean(dim=0), bayes)
            rows.append([f"`{name}`", f"{task.d}", f"{task.n}", estimate(risk), median, above])
    header = ["predictor", "d", "n", "mean excess risk [95 %]", "median"]
    return table([*header, "mean minus Bayes, paired [95 %]"], rows)


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


def probe_risks(studies: dict[str, Study], models: dict[str, Checkpoint]) -> str:
    """Risk of the probe after every layer, and of the model's own read-out."""
    rows = []
    for name, study in studies.items():
        for layer, risks in enumerate(study.risks[:, 1:].unbind(dim=1), 1):
            rows.append([f"`{name}`", f"layer {layer}", *_mean_and_median(risks)])
        own = excess_risk(models[name].model, study.contexts)
        rows.append([f"`{name}`", "its own read-out", *_mean_and_median(own)])
    return table(["model", "read after", "mean excess risk [95 %]", "median"], rows)


def readable(studies: dict[str, Study]) -> str:
    """R² of reading c_j x_qj after every layer, for every scale c."""
    rows = [
        [f"`{name}`", layer, *map(_over_models, probes.readable.values())]
        for name, study in studies.items()
        for layer, probes in enumerate(study.layers[1:], 1)
    ]
    scales = next(iter(studies.values())).layers[0].readable
    return table(["model", "layer", *(f"{name}" for name in scales)], rows)


def averages(studies: dict[str, Study]) -> str:
    """The two fractions that decide claim A5, for every way to average over contexts."""
    rows = []
    for name, study in studies.items():
        found = [study.criteria(average)[1:] for average in TRIMS]
        lead, fraction = zip(*found, strict=True)
        rows.append([f"`{name}`", *map(_over_models, (*lead, *fraction))])
    header = [f"{what}, {average}" for what in ("lead over GD", "explained") for average in TRIMS]
    return table(["model", *header], rows)


def _over_models(values: torch.Tensor) -> Estimate | str:
    return over_seeds(values) if len(values) > 1 else f"{values.item():.3f}"


def _mean_and_median(risks: torch.Tensor) -> tuple[Estimate, str]:
    return estimate(risks), f"{risks.median(dim=-1).values.mean():.3f}"


def standoffs(found: dict[str, dict[str, torch.Tensor]]) -> str:
    """Claim A7 in every setting: risks, medians, and paired differences over repetitions."""
    rows = []
    for setting, risks in found.items():
        better = contests.better_baseline(risks)
        for name in (contests.PREPROCESSED, contests.FIXED):
            if name in risks:
                rows.append(
                    [
                        f"`{setting}`",
                        "fixed" if name == contests.FIXED else "relative",
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
