"""One style, one function per kind of figure; every function draws and leaves the figure open.

Data come as frames: estimates are columns value, low and high, `panel` and `label` say where rows
belong. Estimators look as the registry says, models as said here. Grounds are transparent, nothing
is pale, and captions name hues but nothing light or dark: in the dark a page turns these around.
"""

from collections.abc import Iterable
from itertools import count, product
from textwrap import fill

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, Normalize, SymLogNorm, to_rgb
from matplotlib.ticker import FixedLocator, Locator, LogLocator, MaxNLocator, NullFormatter
from matplotlib_inline.backend_inline import set_matplotlib_formats
from sklearn.isotonic import isotonic_regression
from torch import tensor

from icl.estimators import ESTIMATORS
from icl.intervals import geometric, over_seeds

WIDTH = 4.8  # inches: narrow, so that text is still legible where a phone shrinks the figure
SMALL = 10  # points: the least size of text, for the same reason
INK = "#6446c4"  # of models, where colour says nothing
# Of whatever is no estimator, in order.
COLOURS = "#cf68ae", "#a05fd0", INK, "#29176b", "#7a7d00", "#00868b", "#b0473c", "#5f6b7a"
MARKERS, LINES = "osD^vPX*", ("-", "--", "-.", ":")
# The place there of what several figures show; others take the places left over.
PLACES = {"h = 1": 0, "1-1-1 heads": 0, "one head, from scratch": 0, "h = 2": 1, "h = 4": 2}
PLACES |= dict.fromkeys(("h = 8", "8-8-8 heads", "all heads", "model"), 3)
# Of cells, which black numbers are legible on: shares, and numbers of either sign; and of dots.
BLENDS = "#f6f2fc,#b9a0ea", "#79b0ea,white,#f0928a", "#2f7ed0,#8d4fb0,#d0402f"
SHARES, SIGNED, HUES = (sns.color_palette(f"blend:{ends}", as_cmap=True) for ends in BLENDS)
STYLE = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "figure.labelsize"), 11),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), SMALL),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "figure.constrained_layout.use": True,
    "axes.titlelocation": "left",
    "svg.fonttype": "none",
    "svg.hashsalt": "icl",
}


def subplots(*shape: int, **settings) -> tuple[plt.Figure, np.ndarray | plt.Axes]:
    """Figure and axes in the book's style: no ground of their own, and text that stays text."""
    sns.set_theme(context="notebook", style="whitegrid", palette=[INK], rc=STYLE)
    set_matplotlib_formats("svg", metadata={"Date": None})
    return plt.subplots(*shape, **settings)


def looks(labels: Iterable[str]) -> dict[str, dict]:
    """Colour, marker and line of every label."""
    labels = list(dict.fromkeys(labels))
    ours = [label for label in labels if label not in ESTIMATORS]
    free = (place for place in count() if place not in map(PLACES.get, ours))
    found = {}
    for label in labels:
        if label in ESTIMATORS:
            look = ESTIMATORS[label].colour, ESTIMATORS[label].marker, LINES[bool(ours)]
        else:
            place = PLACES[label] if label in PLACES else next(free)
            again, place = divmod(place, len(COLOURS))
            look = COLOURS[place], MARKERS[place], LINES[again % len(LINES)]
        found[label] = dict(zip(("color", "marker", "linestyle"), look, strict=True))
    return found


def key(fig: plt.Figure, handles: dict[str, object]) -> None:
    """A legend above the panels, in as many columns as fit; the figure grows by its height."""
    about = {"loc": "outside upper center", "columnspacing": 1.0, "handlelength": 1.6}
    for columns in (4, 3, 2, 1):
        legend = fig.legend(handles.values(), handles, ncols=columns, **about)
        box = legend.get_window_extent()
        if box.width <= fig.bbox.width or columns == 1:
            break
        legend.remove()
    fig.set_figheight(fig.get_figheight() + box.height / fig.dpi)


def dots(
    frame: pd.DataFrame,
    references: pd.DataFrame,
    xlabel: str = "excess risk",
    limit: float | None = None,
    most: float | None = None,
) -> None:
    """A panel per `panel`, a row per `label`: a dot per seed, the mean and its 95 % interval.

    `frame` has a `value` per seed, up to `most`, `references` a vertical line per panel and
    label. With a `limit` the axis is logarithmic and ends there in arrows; means are geometric.
    """
    panels = dict(list(frame.groupby("panel", sort=False)))
    heights = [rows.label.nunique() + 1.6 for rows in panels.values()]
    size = {"figsize": (WIDTH, 0.36 * sum(heights)), "height_ratios": heights}
    fig, axes = subplots(len(panels), 1, squeeze=False, **size)
    handles = {}
    for ax, (panel, rows) in zip(axes[:, 0], panels.items(), strict=True):
        labels = rows.label.unique()
        for y, label in enumerate(labels):
            values = tensor(rows[rows.label == label].value.tolist())
            if limit and values.min() > limit:
                ax.plot(limit, y, ">", markersize=9, clip_on=False)
                continue
            ax.plot(values, y + np.linspace(-0.15, 0.15, len(values)), "o", alpha=0.5, markersize=5)
            known = (0.0 if values.min() >= 0 else -np.inf, most or np.inf)
            found = (geometric if limit else over_seeds)(values).within(*known)
            ends = [[found.value - found.low], [found.high - found.value]]
            ax.errorbar(found.value, y, xerr=ends, fmt="|", markersize=14, capsize=4)
        lines = references[references.panel == panel]
        for name, value, style in zip(lines.label, lines.value, LINES[1:], strict=False):
            colour = ESTIMATORS[name].colour if name in ESTIMATORS else "0.25"
            handles[name] = ax.axvline(value, linestyle=style, color=colour, linewidth=1.8)
        ax.set(xscale="log" if limit else "linear", xlim=(0 if most else None, limit or most))
        if limit:
            mark_decades(ax.xaxis)
        ax.set_yticks(range(len(labels)), [fill(x, 22, break_on_hyphens=False) for x in labels])
        ax.set(title=panel, ylim=(len(labels) - 0.5, -0.5))
        ax.grid(axis="y", visible=False)
    axes[-1, 0].set_xlabel(f"{xlabel} (▸ beyond {limit:g})" if limit else xlabel)
    key(fig, handles)


def curves(
    frame: pd.DataFrame,
    x: str,
    xlabel: str,
    ylabel: str = "excess risk",
    log: str = "y",
    span: tuple[float, float] = (-np.inf, np.inf),
) -> None:
    """Estimates against column `x`: a line with a 95 % band per `label`.

    A row of panels per `panel`; with a column `column`, a column of panels for each of its values.
    `log` names the logarithmic axes, "", "x", "y" or "xy". The vertical axis ends where `span`
    does, with an arrow where a line goes on.
    """
    frame = frame.assign(column=frame.get("column", ""))
    rows, columns = (list(dict.fromkeys(frame[side])) for side in ("panel", "column"))
    look, size = looks(frame.label), (WIDTH, (3 if len(rows) < 3 else 2.2) * len(rows))
    grid = {"sharex": True, "sharey": "row", "squeeze": False}
    fig, axes = subplots(len(rows), len(columns), figsize=size, **grid)
    handles, (low, high) = {}, span
    for ax, (panel, column) in zip(axes.flat, product(rows, columns), strict=True):
        here = frame[(frame.panel == panel) & (frame.column == column)]
        for label, line in here.groupby("label", sort=False):
            (handles[label],) = ax.plot(line[x], line.value, label=label, **look[label])
            colour = {"color": look[label]["color"]}
            ax.fill_between(line[x], line.low, line.high, alpha=0.15, linewidth=0, **colour)
            for end, arrow, out in ((low, "v", line.value < low), (high, "^", line.value > high)):
                for at in line[x][out][:1]:  # where it begins to be out
                    ax.plot(at, end, arrow, clip_on=False, markersize=9, **colour)
        ax.set(**{f"{axis}scale": "log" for axis in log})
        above = [column] if column and panel == rows[0] else []
        ax.set_title("\n".join([*above, panel if column == columns[0] else ""]))
        if "y" in log:  # bands may reach to zero, so lines set the limits
            shown = frame[(frame.panel == panel) & (frame.value > 0)]
            least, most = shown.value.clip(low, high).agg(["min", "max"])
            bottom, top = shown.low.clip(least / 2).min(), shown.high.clip(upper=2 * most).max()
            ax.set_ylim(max(low, bottom / 1.1), min(high, 1.1 * top))
            mark_decades(ax.yaxis)
        elif high < np.inf:
            ax.set_ylim(span)
    axis, values = axes[-1, 0].xaxis, sorted(set(frame[x]))
    if "x" in log:
        few = len(values) < 8 and values[-1] < 100 * values[0]
        mark_decades(axis, FixedLocator(values) if few else None)
    else:
        axis.set_major_locator(MaxNLocator(integer=bool((frame[x] % 1 == 0).all())))
    marks = (frame.value < low, f"▾ below {low:g}"), (frame.value > high, f"▴ above {high:g}")
    beyond = ", ".join(text for out, text in marks if out.any())
    fig.supxlabel(xlabel)
    fig.supylabel(f"{ylabel} ({beyond})" if beyond else ylabel)
    if len(columns) > 1 or not name_ends(axes[:, 0]):
        key(fig, handles)


def mark_decades(axis: Axis, places: Locator | None = None) -> None:
    """Numbers as one writes them on a logarithmic axis, more of them where it is short."""
    subs = (1, 2, 5) if np.divide(*axis.get_view_interval()) > 0.01 else (1,)
    axis.set_major_locator(places or LogLocator(subs=subs, numticks=9))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def name_ends(panels: Iterable[plt.Axes]) -> bool:
    """Name lines at their right ends if they are few, end alike and apart; whether it did."""
    panels[0].figure.draw_without_rendering()
    names = {}
    for ax in panels:
        lines = [line for line in ax.get_lines() if line.get_label()[0] != "_"]
        ends = [(line.get_xdata()[-1], line.get_ydata()[-1].clip(*ax.get_ylim())) for line in lines]
        y = ax.transData.transform(ends)[:, 1] * 72 / ax.figure.dpi
        order, steps = y.argsort(), 1.3 * SMALL * np.arange(len(lines))
        moved = isotonic_regression(y[order] - steps) + steps - y[order]  # as little as will do
        names |= {lines[i]: (ends[i], up) for i, up in zip(order, moved, strict=True)}
        alike = len({x for x, _ in ends}) == 1 and abs(moved).max() < 1.3 * SMALL
        if len(lines) > 4 or not alike or max(len(line.get_label()) for line in lines) > 15:
            return False
    for line, (end, up) in names.items():
        about = {"xytext": (8, up), "textcoords": "offset points", "fontsize": SMALL}
        dark = [0.7 * part for part in to_rgb(line.get_color())]
        line.axes.annotate(line.get_label(), end, va="center", color=dark, **about)
    return True


def against(frame: pd.DataFrame, xlabel: str, ylabel: str) -> None:
    """Measured values with their 95 % intervals against those `expected`, which the line marks."""
    fig, axes = subplots(figsize=(WIDTH, 4))
    axes.axline((0, 0), slope=1, color="0.6", linewidth=1)
    handles, look = {}, looks(frame.label)
    for label, points in frame.groupby("label", sort=False):
        error = [points.value - points.low, points.high - points.value]
        about = {"fmt": look[label]["marker"], "color": look[label]["color"], "capsize": 4}
        handles[label] = axes.errorbar(points.expected, points.value, yerr=error, **about)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    key(fig, handles)


def matrices(rows: list[tuple[str, dict[str, np.ndarray]]]) -> None:
    """Rows of a title and named matrices side by side, which share a colour scale."""
    columns = max(len(found) for _, found in rows)
    size = {"figsize": (WIDTH, 0.4 + WIDTH / columns * len(rows))}
    _, panels = subplots(len(rows), columns, squeeze=False, **size)
    for ax in panels.flat:
        ax.set_axis_off()
    for line, (title, found) in zip(panels, rows, strict=True):
        limit = max(np.abs(matrix).max() for matrix in found.values())
        for ax, (name, matrix) in zip(line, found.items(), strict=False):
            ax.imshow(matrix, cmap="vlag", vmin=-limit, vmax=limit)
            ax.set_title(f"{title}\n{name}" if title else name, fontsize=SMALL)


def heat_map(axes: plt.Axes, table: pd.DataFrame, norm: Normalize, cmap: Colormap, **cells) -> None:
    """A cell per number of the table, coloured and written."""
    written = {"annot": True, "fmt": ".0f", "annot_kws": {"size": SMALL, "color": "black"}} | cells
    sns.heatmap(table, ax=axes, norm=norm, cmap=cmap, cbar=False, linewidths=1, **written)
    axes.grid(visible=False)
    axes.tick_params(axis="y", rotation=0)


def percentages(axes: plt.Axes, table: pd.DataFrame, **cells) -> None:
    """Percentages, blue below zero and red above, cut at 999; beyond 100 colours go on by order."""
    shown = table.clip(-999, 999).round() + 0.0  # no −0
    heat_map(axes, shown, SymLogNorm(100, linscale=2, vmin=-1000, vmax=1000), SIGNED, **cells)
