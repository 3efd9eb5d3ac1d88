"""Models of one to five layers beside the algorithms: what heads gain, and who stands where."""

from dataclasses import replace

import pytest
import torch

from icl import figures
from icl.descent import GradientDescent
from icl.errors import Refused
from icl.experiments import from_one_layer_to_many
from icl.experiments.from_one_layer_to_many import DEPTHS, PLANS
from icl.experiments.models import BY_HEADS
from icl.intervals import trimmed
from icl.one_layer import distance, effective_step, optimal_one_step
from icl.transformer import build


@pytest.fixture(scope="module")
def found():
    return from_one_layer_to_many.run(contexts=50, seed=3)


def made(found, levels):
    """The result with made-up risks: of two seeds, levels(depth, h) and twice that, trimmed.

    The last of the hundred contexts is rare: with it the mean is 1.99 times as large.
    """
    once = torch.tensor([0.0, 2.25, 0.75]).repeat(33)
    seeds = torch.cat([once, torch.tensor([100.0])]) * torch.tensor([[1.0], [2.0]])
    risks = {
        name: levels(depth, h) * seeds
        for depth, names in BY_HEADS.items()
        for h, name in names.items()
    }
    return replace(found, risks=risks)


def rows(text):
    """The values that stand in a Markdown table, by the first cell of each row."""
    text = text.replace("\N{MINUS SIGN}", "-").replace("\N{NO-BREAK SPACE}", " ")
    lines = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {first: [float(cell.split()[0]) for cell in rest] for first, *rest in lines}


def test_the_gain_of_eight_heads_is_a_fraction_of_one_head_s_risk(found):
    assert made(found, lambda depth, h: depth / h).gain(3).value == pytest.approx(7 / 8)
    assert made(found, lambda depth, h: h / depth).gain(3).value == pytest.approx(-7)
    assert made(found, lambda depth, h: depth).gain(3).value == 0


def test_every_risk_stands_at_its_layers_and_heads(found):
    result = made(found, lambda depth, h: 10 * depth + h)
    numbers = rows(result.numbers())
    means, medians = (rows(result.by_average(average)) for average in ("mean", "median"))
    for depth in DEPTHS:
        levels = [10 * depth + h for h in (1, 2, 4, 8)]
        gain = 1 - levels[3] / levels[0]
        assert numbers[f"{depth}"] == pytest.approx([*(1.5 * x for x in levels), gain], abs=6e-4)
        assert means[f"{depth}"] == pytest.approx([2.985 * x for x in levels], abs=6e-4)
        assert medians[f"{depth}"] == pytest.approx([1.125 * x for x in levels], abs=6e-4)
    for depth, names in BY_HEADS.items():
        for h, name in names.items():
            assert PLANS[name].config.architecture.heads == (h,) * depth


def test_the_figure_has_the_same_average_of_models_and_algorithms(found, monkeypatch):
    result, drawn = made(found, lambda depth, h: 10 * depth + h), []
    monkeypatch.setattr(figures, "curves", lambda frame, *_: drawn.append(frame))
    result.plot_depth()
    at = drawn[0].set_index(["panel", "label", "layers"]).value
    models, algorithms = at.index.levels[0][::-1]
    assert at[models, "h = 4", 3] == pytest.approx(1.5 * 34)
    bayes = trimmed(found.comparison.baselines["Bayes"], dim=0).item()
    assert at[models, "Bayes", 1] == at[algorithms, "Bayes", 1] == pytest.approx(bayes)


def test_the_gain_s_interval_covers_the_contexts(found):
    def varied(depth, h):
        return (1 + h * torch.linspace(0, 1, 100)) / depth  # seeds alike but for a factor

    gain = made(found, varied).gain(2)
    assert gain.low < gain.value - 1e-3 < gain.value + 1e-3 < gain.high


def test_the_finding_says_what_single_layers_have_and_what_heads_gain(found):
    result = made(found, lambda depth, h: depth + h)
    gains = [f"{result.gain(depth)} with {words}" for depth, words in ((1, "one"), (5, "five"))]
    singles = ["3.000 [", "13.500 ["]
    assert all(part in result.finding for part in gains)
    assert all(part in result.finding for part in singles)


def test_an_algorithm_takes_a_step_per_layer_after_preprocessing(found, monkeypatch):
    taken = []

    class Recorded:
        def __init__(self, label):
            self.label = label

        def tuned(self, task, steps):
            taken.append((self.label, steps))
            return GradientDescent(steps, 0.3)

    labels = from_one_layer_to_many.ALGORITHMS
    monkeypatch.setattr(
        from_one_layer_to_many, "ESTIMATORS", {label: Recorded(label) for label in labels}
    )
    points = from_one_layer_to_many.algorithms(found.comparison)
    assert taken[:5] == [("GD", t) for t in range(1, 6)]
    assert taken[5:] == [(label, t) for label in list(labels)[1:] for t in range(1, 5)]
    # Given a rate, the risk depends on the steps alone: a later layer of the other two.
    at = points.set_index(["label", "layers"]).value
    for layers in range(2, 6):
        assert at["preprocessed GD", layers] == at["GD", layers - 1]
    assert ("preprocessed GD", 1) not in at.index


def test_a_single_layer_that_is_not_trained_is_far_from_the_best_step(found):
    trained, task = found.models["heads-8-1"], found.comparison.contexts.task
    best = optimal_one_step(task)
    near = distance(effective_step(trained.model), best)
    assert (near < 0.05).all()
    shown = rows(found.one_layer())
    assert list(shown) == ["1", "2", "4", "8"]
    assert shown["8"][0] == pytest.approx(near.mean().item(), abs=6e-4)
    fresh = build(trained.config.architecture, 5).initialise(trained.seeds, 1.0)
    models = found.models | {"heads-8-1": replace(trained, model=fresh)}
    far, risk = rows(replace(found, models=models).one_layer())["8"]
    assert far > 0.5
    assert risk > 100 * shown["8"][1]


def test_values_that_are_not_allowed_are_refused():
    with pytest.raises(Refused, match="contexts=1: allowed are whole numbers from 2 on"):
        from_one_layer_to_many.run(contexts=1, seed=0)
