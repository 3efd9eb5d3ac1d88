"""One style, one function per kind of figure; every function draws and leaves the figure open."""

from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.ticker import MaxNLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats

from icl.checkpoints import BLOCK, Checkpoint
from icl.heads import Importance
from icl.risk import Estimate, geometric, over_seeds

WIDTH = 5.6  # inches: narrow, so that text is still legible where a phone shrinks the figure


def use_style() -> None:
    """Set the book's style: white ground in light and dark mode, text that stays text."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    plt.rcParams.update(
        {
            "figure.facecolor": "white",
            "savefig.facecolor": "white",
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "icl",
            "font.size": 12,
        }
    )
    set_matplotlib_formats("svg", metadata={"Date": None})


def top_shares(found: dict[str, Importance], threshold: float) -> None:
    """The largest share of every layer: a dot per seed, the mean and its 95 % interval."""
    fig, axes = plt.subplots(figsize=(WIDTH, 4))
    ticks, labels, start = [], [], 0
    for colour, (name, importance) in zip(sns.color_palette(), found.items(), strict=False):
        top = importance.top_share
        for layer in range(top.shape[1]):
            _dots(axes, start + layer, top[:, layer], colour)
            ticks.append(start + layer)
            labels.append(str(layer + 1))
        axes.plot([], [], "o", color=colour, label=name)
        start += top.shape[1] + 1
    axes.axhline(threshold, color="0.4", linestyle="--", linewidth=1)
    axes.set(xticks=ticks, ylim=(0, 1.05), xlabel="layer", ylabel="share of the top head")
    axes.set_xticklabels(labels)
    axes.grid(axis="x", visible=False)
    fig.legend(loc="outside upper center", ncols=2, fontsize=11)


def dots(
    panels: dict[str, dict[str, torch.Tensor]],
    references: dict[str, dict[str, float]],
    xlabel: str = "mean excess risk",
    limit: float | None = None,
) -> None:
    """A panel per title, a row per label: a dot per seed (M,), the mean and its 95 % interval.

    `references` holds, per panel, values to draw as vertical lines. With a `limit` the axis
    is logarithmic and ends there, means are geometric, and what lies beyond is an arrow.
    """
    counts = [len(rows) for rows in panels.values()]
    fig, axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH, sum(0.34 * n + 0.75 for n in counts) + 0.4),
        height_ratios=[n + 1.2 for n in counts], squeeze=False,
    )  # fmt: skip
    for ax, (title, rows) in zip(axes[:, 0], panels.items(), strict=True):
        for y, values in enumerate(rows.values()):
            if limit and values.min() > limit:
                ax.plot(limit, y, ">", color=sns.color_palette()[0], markersize=9, clip_on=False)
            else:
                _dots(ax, y, values, sns.color_palette()[0], across=True, log=bool(limit))
        for (name, value), style in zip(references[title].items(), ("--", "-.", ":"), strict=False):
            ax.axvline(value, linestyle=style, color="0.25", linewidth=1.4, label=name)
        if limit:
            ax.set(xscale="log", xlim=(None, limit))
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(len(rows) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_title(title, loc="left", fontsize=12)
    axes[-1, 0].set_xlabel(xlabel)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=11)


def _dots(
    axes: plt.Axes,
    at: float,
    values: torch.Tensor,
    colour: tuple,
    across: bool = False,
    log: bool = False,
) -> None:
    """A dot per seed, the mean and its interval, upwards or across."""
    found, spread = (
        (geometric if log else over_seeds)(values),
        np.linspace(-0.15, 0.15, len(values)),
    )
    error = [[found.mean - found.low], [found.high - found.mean]]
    mark = {"color": colour, "markersize": 14, "capsize": 4}
    if across:
        axes.plot(values, at + spread, "o", color=colour, alpha=0.5, markersize=5)
        axes.errorbar(found.mean, at, xerr=error, fmt="|", **mark)
    else:
        axes.plot(at + spread, values, "o", color=colour, alpha=0.5, markersize=5)
        axes.errorbar(at, found.mean, yerr=error, fmt="_", **mark)


def curves(
    panels: dict[str, dict[str, list[tuple[float, Estimate]]]],
    xlabel: str,
    ylabel: str = "mean excess risk",
    log: str = "y",
) -> None:
    """Estimates against x: a panel per title, a line with a 95 % band per label.

    `log` names the logarithmic axes, "", "x", "y" or "xy". A label has one colour and marker
    in all panels.
    """
    fig, axes = plt.subplots(
        len(panels), 1, figsize=(WIDTH, 3.4 * len(panels)), sharex=True, squeeze=False
    )
    labels = list(dict.fromkeys(label for lines in panels.values() for label in lines))
    looks = dict(zip(labels, zip(cycle(sns.color_palette()), cycle("osD^vPX*")), strict=False))
    handles = {}
    for ax, (title, lines) in zip(axes[:, 0], panels.items(), strict=True):
        for label, points in lines.items():
            colour, marker = looks[label]
            x, found = zip(*points, strict=True)
            means, lows, highs = ([getattr(e, k) for e in found] for k in ("mean", "low", "high"))
            (handles[label],) = ax.plot(x, means, marker=marker, color=colour, markersize=5)
            ax.fill_between(x, lows, highs, color=colour, alpha=0.15, linewidth=0)
        ax.set(title=title, ylabel=ylabel)
        ax.title.set_size(12)
        for axis in log:
            getattr(ax, f"set_{axis}scale")("log")
        if "x" in log:  # the values themselves: powers of ten are too far apart
            ticks = sorted({x for line in lines.values() for x, _ in line})
            ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
            ax.set_xticks([], minor=True)
    axes[-1, 0].set_xlabel(xlabel)
    if "x" not in log:
        axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    columns = 3 if max(map(len, handles)) < 20 else 2
    fig.legend(handles.values(), handles, loc="outside upper center", ncols=columns, fontsize=10)


def against(groups: dict[str, list[tuple[float, Estimate]]], xlabel: str, ylabel: str) -> None:
    """Measured values with their 95 % intervals against expected ones, which the line marks."""
    fig, axes = plt.subplots(figsize=(WIDTH, 4))
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
    for (label, points), marker in zip(groups.items(), cycle("osD^vPX*"), strict=False):
        x, found = zip(*points, strict=True)
        error = [[e.mean - e.low for e in found], [e.high - e.mean for e in found]]
        means = [e.mean for e in found]
        axes.errorbar(x, means, yerr=error, fmt=marker, capsize=4, alpha=0.8, label=label)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    fig.legend(loc="outside upper center", ncols=3, fontsize=11)


def training_curves(models: list[Checkpoint], references: list[dict[str, float]]) -> None:
    """Excess risk of the training batches against the step, one line per seed, one panel a model.

    `references`, one dictionary per model, are risks to draw as horizontal lines.
    """
    rows = (len(models) + 1) // 2
    fig, panels = plt.subplots(rows, 2, figsize=(WIDTH, 2.9 * rows), sharey=True, squeeze=False)
    for axes in panels.flat[len(models) :]:
        axes.set_axis_off()
    for axes, model, risks in zip(panels.flat, models, references, strict=False):
        steps = BLOCK * (torch.arange(len(model.curve)) + 1) / 1000
        for curve in model.curve.T:
            axes.plot(steps, curve, linewidth=0.8, color=sns.color_palette()[0], alpha=0.6)
        for (name, risk), style in zip(risks.items(), ("--", "-.", ":"), strict=False):
            axes.axhline(risk, linestyle=style, color="0.25", linewidth=1.4, label=name)
        axes.set(yscale="log", title=model.name, xlabel="thousand steps")
        axes.title.set_size(12)
    for axes in panels[:, 0]:
        axes.set_ylabel("excess risk")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=11)


def moments(first: torch.Tensor, second: torch.Tensor) -> None:
    """Mean and variance of every entry of two batches of matrices, one against the other."""
    _, panels = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    for axes, name in zip(panels, ("mean", "variance"), strict=True):
        moment = {"mean": torch.mean, "variance": torch.var}[name]
        x, y = moment(second, dim=0).flatten(), moment(first, dim=0).flatten()
        axes.axline((float(x.mean()),) * 2, slope=1, color="0.6", linewidth=1)
        axes.plot(x, y, "o", markersize=5, alpha=0.7)
        axes.set(title=name, xlabel="from tokens")
    panels[0].set_ylabel("drawn directly")
