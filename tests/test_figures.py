"""Figures show the numbers they are given, and estimators look alike in all of them."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb

from icl import figures
from icl.estimators import ESTIMATORS
from icl.experiments.measures import ONE_HEAD, plot_shares, plot_top_shares

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def line(panel, label, points):
    about = {"panel": panel, "label": label}
    return [about | {"n": x, "value": y, "low": 0.9 * y, "high": 1.1 * y} for x, y in points]


def test_curves_have_a_panel_and_a_line_each_and_the_estimators_their_own_look():
    rows = line("a", "h = 1", [(8, 0.5), (16, 0.25)]) + line("a", "ridge", [(8, 0.4), (16, 0.3)])
    rows += line("b", "ridge", [(8, 0.2)])
    figures.curves(pd.DataFrame(rows), "n", "examples", log="xy")
    first, second = plt.gcf().axes
    assert [axes.get_title(loc="left") for axes in (first, second)] == ["a", "b"]
    model, ridge = first.get_lines()
    assert list(model.get_xdata()) == [8, 16]
    assert list(model.get_ydata()) == [0.5, 0.25]
    known = ESTIMATORS["ridge"]
    for drawn in (ridge, *second.get_lines()):
        assert (to_hex(drawn.get_color()), drawn.get_marker()) == (known.colour, known.marker)
    assert (model.get_linestyle(), ridge.get_linestyle()) == ("-", "--")
    assert first.get_yscale() == first.get_xscale() == "log"
    assert [set(names(axes)) for axes in (first, second)] == [{"h = 1", "ridge"}, {"ridge"}]
    assert [label.get_text() for label in second.get_xticklabels()] == ["8", "16"]


def test_panels_side_by_side_share_an_axis_that_holds_what_is_in_both():
    low, high = (pd.DataFrame(line("a", "x", [(1, y), (2, 1.1 * y)])) for y in (0.2, 0.9))
    both = pd.concat([low.assign(column="share"), high.assign(column="entropy")])
    figures.curves(both, "n", "examples", log="")
    for axes in plt.gcf().axes:
        bottom, top = axes.get_ylim()
        assert bottom < 0.2 < 0.99 < top


def names(axes):
    return {text.get_text(): text for text in axes.texts}


def test_few_lines_are_named_at_their_ends_and_not_on_top_of_one_another():
    ends = {"a": 1.0, "b": 1.01, "c": 5.0}
    rows = [row for label, end in ends.items() for row in line("", label, [(1, 1), (2, end)])]
    figures.curves(pd.DataFrame(rows), "n", "examples")
    figure = plt.gcf()
    figure.draw_without_rendering()
    assert not figure.legends
    boxes = {name: text.get_window_extent() for name, text in names(figure.axes[0]).items()}
    assert boxes["a"].y1 <= boxes["b"].y0 < boxes["b"].y1 <= boxes["c"].y0
    assert boxes["a"].x0 > figure.axes[0].bbox.x1 - 25
    middle = figure.axes[0].transData.transform((2, 5.0))[1]
    assert (boxes["c"].y0 + boxes["c"].y1) / 2 == pytest.approx(middle, abs=2)


@pytest.mark.parametrize(
    "ends",
    [
        {"a": [(1, 1), (2, 1)], "b": [(1, 2), (3, 2)]},  # not where the other ends
        {name: [(1, 1), (2, 1)] for name in "abcd"},  # all at one place
        {name: [(1, i), (2, i)] for i, name in enumerate("abcde", 1)},  # too many
        {"a name that leaves no room": [(1, 1), (2, 1)]},
    ],
)
def test_a_legend_names_lines_that_cannot_be_named_at_their_ends(ends):
    rows = [row for label, points in ends.items() for row in line("", label, points)]
    figures.curves(pd.DataFrame(rows), "n", "examples")
    assert not names(plt.gcf().axes[0])
    assert [text.get_text() for text in plt.gcf().legends[0].get_texts()] == list(ends)


def test_bands_that_reach_zero_do_not_stretch_a_logarithmic_axis():
    rows = [{"panel": "", "label": "a", "n": n, "value": v} for n, v in ((1, 1.0), (2, 0.5))]
    figures.curves(pd.DataFrame(rows).assign(low=-1.0, high=1e9), "n", "examples")
    bottom, top = plt.gcf().axes[0].get_ylim()
    assert 0.2 < bottom < 0.5
    assert 1.0 < top < 2.5


def test_an_axis_ends_with_its_span_and_an_arrow_says_where_a_line_goes_on():
    rows = line("", "a", [(1, 1.0), (2, 1e-9), (3, 1e-9)]) + line("", "b", [(1, 1.0), (2, 1e9)])
    figures.curves(pd.DataFrame(rows), "n", "examples", span=(0.1, 10.0))
    (axes,) = plt.gcf().axes
    assert axes.get_ylim() == (0.1, 10.0)
    arrows = {
        drawn.get_marker(): drawn for drawn in axes.get_lines() if len(drawn.get_xdata()) == 1
    }
    assert arrows["v"].get_xydata().tolist() == [[2, 0.1]]
    assert arrows["^"].get_xydata().tolist() == [[2, 10.0]]
    assert plt.gcf().get_supylabel() == "excess risk (▾ below 0.1, ▴ above 10)"


def test_an_axis_without_a_span_shows_values_below_zero():
    figures.curves(pd.DataFrame(line("", "a", [(1, -0.5), (2, 1.0)])), "n", "examples", log="")
    (axes,) = plt.gcf().axes
    assert len(axes.get_lines()) == 1
    assert axes.get_ylim()[0] < -0.5
    assert plt.gcf().get_supylabel() == "excess risk"


def test_panels_stand_in_columns_where_a_column_says_so():
    points = [(1, 0.5), (2, 0.5)]
    rows = [row | {"column": c} for c in "xy" for p in "pq" for row in line(p, "a", points)]
    figures.curves(pd.DataFrame(rows), "n", "examples")
    titles = [axes.get_title(loc="left") for axes in plt.gcf().axes]
    assert titles == ["x\np", "y\n", "q", ""]


def contrast(one, other):
    low, high = sorted(luminance(colour) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


def in_the_dark(colour):
    """What the style sheet's invert(0.93) hue-rotate(180deg) makes of it."""
    turned = 0.93 - 0.86 * np.array(to_rgb(colour))
    return np.clip(2 * turned @ [0.213, 0.715, 0.072] - turned, 0, 1)


def test_every_line_stands_out_from_the_page_in_the_light_and_in_the_dark():
    for colour in (*(known.colour for known in ESTIMATORS.values()), *figures.COLOURS):
        assert contrast(colour, "white") >= 3, colour
        assert contrast(in_the_dark(colour), "#121212") >= 3, colour


def test_written_numbers_are_legible_on_every_cell_in_the_light_and_in_the_dark():
    for colours in (figures.SHARES, figures.SIGNED):
        for cell in colours(np.linspace(0, 1, 9))[:, :3]:
            assert contrast("black", cell) >= 4.5
            assert contrast(in_the_dark("black"), in_the_dark(cell)) >= 3.5


def test_every_label_has_a_look_of_its_own():
    labels = [*ESTIMATORS, *(f"h = {h}" for h in (1, 2, 4, 8))]
    found = figures.looks(labels)
    assert set(found) == set(labels)
    assert len({to_hex(look["color"]) for look in found.values()}) == len(labels)
    assert found["zero"]["color"] == ESTIMATORS["zero"].colour
    assert figures.looks(["mine", "h = 8", "8-8-8 heads"])["h = 8"] == found["h = 8"]
    many = figures.looks(f"model {i}" for i in range(20)).values()
    assert len({(look["color"], look["linestyle"]) for look in many}) == 20


def test_dots_show_every_seed_and_an_arrow_beyond_the_limit():
    rows = [{"panel": "p", "label": "good", "value": v} for v in (0.1, 0.2, 0.3)]
    rows += [{"panel": "p", "label": "bad", "value": v} for v in (50.0, 60.0)]
    references = pd.DataFrame([{"panel": "p", "label": "ridge", "value": 0.4}])
    figures.dots(pd.DataFrame(rows), references, limit=10)
    (axes,) = plt.gcf().axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["good", "bad"]
    drawn = {drawn.get_marker(): drawn for drawn in axes.get_lines()}
    assert drawn["o"].get_xdata() == pytest.approx([0.1, 0.2, 0.3])
    assert drawn[">"].get_xdata() == [10]
    assert drawn["None"].get_xdata() == [0.4, 0.4]
    assert to_hex(drawn["None"].get_color()) == ESTIMATORS["ridge"].colour
    assert axes.get_xlabel() == "excess risk (▸ beyond 10)"


def test_intervals_end_where_values_do():
    rows = [{"panel": "p", "label": "all of it", "value": value} for value in (0.8, 1.0)]
    none = pd.DataFrame([], columns=["panel", "label", "value"])
    figures.dots(pd.DataFrame(rows), none, "share", most=1.0)
    (axes,) = plt.gcf().axes
    (bar,) = axes.containers[0].lines[2][0].get_segments()
    assert bar[:, 0].max() == 1.0
    assert axes.get_xlim() == (0.0, 1.0)


def test_measured_values_stand_against_those_expected():
    rows = [{"label": "x", "expected": 0.5, "value": 0.6, "low": 0.55, "high": 0.65}]
    figures.against(pd.DataFrame(rows), "expected", "measured")
    (axes,) = plt.gcf().axes
    (container,) = axes.containers
    assert list(container.lines[0].get_xydata()[0]) == [0.5, 0.6]
    (bar,) = container.lines[2][0].get_segments()
    assert bar[:, 1] == pytest.approx([0.55, 0.65])


def test_matrices_of_a_row_share_their_colours():
    figures.matrices([("a", {"x": np.eye(2), "y": -3 * np.eye(2)}), ("", {"z": np.eye(2)})])
    images = [image for axes in plt.gcf().axes for image in axes.get_images()]
    titles = [axes.get_title(loc="left") for axes in plt.gcf().axes]
    assert titles == ["a\nx", "a\ny", "z", ""]
    assert [image.get_clim() for image in images] == [(-3, 3), (-3, 3), (-1, 1)]


def test_percentages_are_rounded_and_cut_where_they_do_not_fit():
    _, axes = figures.subplots()
    figures.percentages(axes, pd.DataFrame({"a": [-0.2, 12.6], "b": [-2e6, 2e6]}))
    assert [text.get_text() for text in axes.texts] == ["0", "-999", "13", "999"]
    colours = axes.collections[0].get_facecolors()
    assert colours[1][2] > colours[1][0]  # below zero more blue than red
    assert colours[3][0] > colours[3][2]


def test_heads_are_ranked_within_every_layer_and_seed_before_they_are_averaged():
    shares = torch.tensor([[[0.9, 0.1], [0.4, 0.6]], [[0.3, 0.7], [torch.nan, torch.nan]]])
    plot_shares({"model": shares})
    (axes,) = plt.gcf().axes
    assert axes.get_title(loc="left") == "model (2 seeds)"
    assert [text.get_text() for text in axes.texts] == ["80", "20", "30", "20"]


def test_the_top_share_of_every_layer_stands_beside_what_is_claimed():
    plot_top_shares({"model": torch.tensor([[0.2, 0.9], [0.3, torch.nan]])})
    (axes,) = plt.gcf().axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["layer 1", "layer 2"]
    first, second, claimed = (drawn for drawn in axes.get_lines() if len(drawn.get_xdata()) == 2)
    assert first.get_xdata() == pytest.approx([0.2, 0.3])
    assert second.get_xdata() == pytest.approx([0.9, 0.0])
    assert set(claimed.get_xdata()) == {ONE_HEAD.threshold}


def test_dots_below_zero_have_their_interval():
    frame = pd.DataFrame({"panel": "", "label": "a", "value": [-0.3, -0.1, -0.2]})
    figures.dots(frame, pd.DataFrame({"panel": [""], "label": ["needed"], "value": [0.1]}))
    (bar,) = plt.gca().containers
    (ends,) = bar.lines[2][0].get_segments()
    assert ends[:, 0].tolist() == pytest.approx([-0.4484, 0.0484], abs=1e-3)
    plt.close()
