"""One style, one function per kind of figure; every function draws and leaves the figure open.

Data come as frames. Estimates are columns value, low and high; `panel` and `label` say where a
row belongs. An estimator has the colour and marker of the registry in every figure; models take
theirs from a palette of their own, in order.
"""

from collections.abc import Iterable
from itertools import cycle

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from matplotlib.ticker import MaxNLocator
from matplotlib_inline.backend_inline import set_matplotlib_formats

from icl.estimators import ESTIMATORS
from icl.intervals import geometric, over_seeds

WIDTH = 5.6  # inches: narrow, so that text is still legible where a phone shrinks the figure
INK = "#4b2991"  # of models, where colour says nothing
MODELS = "blend:#b39ddb,#2a0a4f"  # one hue that no estimator has, from light to dark
LINES = ("--", "-.", ":")


def subplots(*shape: int, **settings) -> tuple[plt.Figure, np.ndarray | plt.Axes]:
    """Figure and axes in the book's style: white ground in light and dark, text that stays text."""
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
    return plt.subplots(*shape, **settings)


def looks(labels: Iterable[str]) -> dict[str, dict]:
    """Colour, marker and line of every label."""
    labels = list(dict.fromkeys(labels))
    ours = [label for label in labels if label not in ESTIMATORS]
    colours = sns.color_palette(MODELS, len(ours))
    found = {
        label: {"color": colour, "marker": marker, "linestyle": "-"}
        for label, colour, marker in zip(ours, colours, cycle("osD^vPX*"), strict=False)
    }
    for label in set(labels) & set(ESTIMATORS):
        known = ESTIMATORS[label]
        line = "--" if ours else "-"
        found[label] = {"color": known.colour, "marker": known.marker, "linestyle": line}
    return found


def dots(
    frame: pd.DataFrame,
    references: pd.DataFrame,
    xlabel: str = "excess risk",
    limit: float | None = None,
) -> None:
    """A panel per `panel`, a row per `label`: a dot per seed, the mean and its 95 % interval.

    `frame` has a `value` per seed. `references` has, per panel, values to draw as vertical lines.
    With a `limit` the axis is logarithmic and ends there, means are geometric, and what lies
    beyond is an arrow.
    """
    panels = list(dict.fromkeys(frame.panel))
    rows = {panel: list(dict.fromkeys(frame[frame.panel == panel].label)) for panel in panels}
    counts = [len(labels) for labels in rows.values()]
    fig, axes = subplots(
        len(panels), 1, figsize=(WIDTH, sum(0.34 * n + 0.75 for n in counts) + 0.4),
        height_ratios=[n + 1.2 for n in counts], squeeze=False,
    )  # fmt: skip
    for ax, panel in zip(axes[:, 0], panels, strict=True):
        here = frame[frame.panel == panel]
        for y, label in enumerate(rows[panel]):
            values = torch.tensor(here[here.label == label].value.tolist())
            if limit and values.min() > limit:
                ax.plot(limit, y, ">", color=INK, markersize=9, clip_on=False)
            else:
                mark_seeds(ax, y, values, INK, across=True, log=bool(limit))
        lines = references[references.panel == panel]
        for name, value, style in zip(lines.label, lines.value, LINES, strict=False):
            ax.axvline(value, linestyle=style, color="0.25", linewidth=1.4, label=name)
        if limit:
            ax.set(xscale="log", xlim=(None, limit))
        ax.set_yticks(range(len(rows[panel])), rows[panel])
        ax.set_ylim(len(rows[panel]) - 0.5, -0.5)
        ax.grid(axis="y", visible=False)
        ax.set_title(panel, loc="left", fontsize=12)
    axes[-1, 0].set_xlabel(xlabel)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=len(labels), fontsize=11)


def mark_seeds(
    axes: plt.Axes,
    at: float,
    values: torch.Tensor,
    colour: str | tuple,
    across: bool = False,
    log: bool = False,
) -> None:
    """A dot per seed, the mean and its interval, upwards or across."""
    found = (geometric if log else over_seeds)(values)
    spread = np.linspace(-0.15, 0.15, len(values))
    error = [[found.value - found.low], [found.high - found.value]]
    mark = {"color": colour, "markersize": 14, "capsize": 4}
    if across:
        axes.plot(values, at + spread, "o", color=colour, alpha=0.5, markersize=5)
        axes.errorbar(found.value, at, xerr=error, fmt="|", **mark)
    else:
        axes.plot(at + spread, values, "o", color=colour, alpha=0.5, markersize=5)
        axes.errorbar(at, found.value, yerr=error, fmt="_", **mark)


def curves(
    frame: pd.DataFrame,
    x: str,
    xlabel: str,
    ylabel: str = "excess risk",
    log: str = "y",
) -> None:
    """Estimates against column `x`: a panel per `panel`, a line with a 95 % band per `label`.

    `log` names the logarithmic axes, "", "x", "y" or "xy".
    """
    panels, look = list(dict.fromkeys(frame.panel)), looks(frame.label)
    fig, axes = subplots(
        len(panels), 1, figsize=(WIDTH, 3.4 * len(panels)), sharex=True, squeeze=False
    )
    handles = {}
    for ax, panel in zip(axes[:, 0], panels, strict=True):
        for label, line in frame[frame.panel == panel].groupby("label", sort=False):
            (handles[label],) = ax.plot(line[x], line.value, markersize=5, **look[label])
            band = {"color": look[label]["color"], "alpha": 0.15, "linewidth": 0}
            ax.fill_between(line[x], line.low, line.high, **band)
        ax.set(title=panel, ylabel=ylabel)
        ax.title.set_size(12)
        for axis in log:
            getattr(ax, f"set_{axis}scale")("log")
        if "x" in log:  # the values themselves: powers of ten are too far apart
            ticks = sorted(set(frame[x]))
            turn = 60 if len(ticks) > 7 else 0
            ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks], rotation=turn)
            ax.set_xticks([], minor=True)
    axes[-1, 0].set_xlabel(xlabel)
    if "x" not in log:
        axes[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
    columns = 3 if max(map(len, handles)) < 20 else 2
    fig.legend(handles.values(), handles, loc="outside upper center", ncols=columns, fontsize=10)


def against(frame: pd.DataFrame, xlabel: str, ylabel: str) -> None:
    """Measured values with their 95 % intervals against those `expected`, which the line marks."""
    fig, axes = subplots(figsize=(WIDTH, 4))
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
    groups = frame.groupby("label", sort=False)
    for (label, points), marker in zip(groups, cycle("osD^vPX*"), strict=False):
        error = [points.value - points.low, points.high - points.value]
        about = {"fmt": marker, "capsize": 4, "alpha": 0.8, "label": label}
        axes.errorbar(points.expected, points.value, yerr=error, **about)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    fig.legend(loc="outside upper center", ncols=3, fontsize=11)


def matrices(rows: list[tuple[str, dict[str, np.ndarray]]]) -> None:
    """Rows of a title and named matrices side by side, which share a colour scale."""
    columns = max(len(found) for _, found in rows)
    _, panels = subplots(
        len(rows), columns, figsize=(WIDTH, 0.4 + WIDTH / columns * len(rows)), squeeze=False
    )
    for ax in panels.flat:
        ax.set_axis_off()
    for line, (title, found) in zip(panels, rows, strict=True):
        limit = max(np.abs(matrix).max() for matrix in found.values())
        for ax, (name, matrix) in zip(line, found.items(), strict=False):
            ax.imshow(matrix, cmap="vlag", vmin=-limit, vmax=limit)
            ax.set_title(f"{title}\n{name}" if title else name, fontsize=11)


def percentages(axes: plt.Axes, table: pd.DataFrame, **settings) -> None:
    """A heat-map of percentages, blue below zero and red above, cut where they are too many."""
    shown = table.clip(-999, 999).round() + 0.0  # no −0
    look = {"annot": True, "annot_kws": {"size": 9}, "fmt": ".0f", "cbar": False, "linewidths": 1}
    sns.heatmap(shown, ax=axes, vmin=-100, vmax=100, cmap="vlag", **look, **settings)
    axes.tick_params(axis="y", rotation=0)
