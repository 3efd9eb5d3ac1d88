"""Figures show the numbers they are given, and estimators look alike in all of them."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from icl import figures
from icl.estimators import ESTIMATORS

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
    assert (first.get_title(), second.get_title()) == ("a", "b")
    model, ridge = first.get_lines()
    assert list(model.get_xdata()) == [8, 16]
    assert list(model.get_ydata()) == [0.5, 0.25]
    known = ESTIMATORS["ridge"]
    for drawn in (ridge, *second.get_lines()):
        assert (to_hex(drawn.get_color()), drawn.get_marker()) == (known.colour, known.marker)
    assert (model.get_linestyle(), ridge.get_linestyle()) == ("-", "--")
    assert first.get_yscale() == first.get_xscale() == "log"
    assert [text.get_text() for text in plt.gcf().legends[0].get_texts()] == ["h = 1", "ridge"]


def test_every_label_has_a_look_of_its_own():
    labels = [*ESTIMATORS, *(f"h = {h}" for h in (1, 2, 4, 8))]
    found = figures.looks(labels)
    assert set(found) == set(labels)
    assert len({to_hex(look["color"]) for look in found.values()}) == len(labels)
    assert found["zero"]["color"] == ESTIMATORS["zero"].colour


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
    assert [axes.get_title() for axes in plt.gcf().axes] == ["a\nx", "a\ny", "z", ""]
    assert [image.get_clim() for image in images] == [(-3, 3), (-3, 3), (-1, 1)]


def test_percentages_are_rounded_and_cut_where_they_do_not_fit():
    _, axes = figures.subplots()
    figures.percentages(axes, pd.DataFrame({"a": [-0.2, 12.6], "b": [-2e6, 2e6]}))
    assert [text.get_text() for text in axes.texts] == ["0", "-999", "13", "999"]
    colours = axes.collections[0].get_facecolors()
    assert colours[1][2] > colours[1][0]  # below zero more blue than red
    assert colours[3][0] > colours[3][2]
