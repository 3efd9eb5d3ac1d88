"""Bad input ends in one line that names the argument, its value and what is allowed, at once."""

import math
import re
import signal
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from icl import errors, heads, moments, polynomials, symmetry
from icl.architecture import Architecture
from icl.bayes import PosteriorMean
from icl.checkpoints import join
from icl.configuration import Configuration, Plan, Split, Start
from icl.constructions import gradient_descent, most_readable, preprocess_then_optimise
from icl.contexts import check, draw, generator, gram_moments
from icl.descent import GradientDescent, PreprocessedGD, ReweightedGD
from icl.errors import (
    Refused,
    brief,
    choose,
    fits,
    free_memory,
    real,
    whole,
    writable,
    writable_file,
)
from icl.estimators import Lasso, Ridge
from icl.experiments.constructions import best_layer, lower_bound, paired_error
from icl.files import load
from icl.intervals import estimate, over_seeds, reduction
from icl.iterations import Iteration
from icl.predictors import excess_risk
from icl.recipe import Recipe
from icl.site.chapters import chapters
from icl.starts import begin
from icl.symmetry import Symmetrised, signed_permutations
from icl.tasks import Nonlinear, SparseLinear
from icl.transformer import build

BOOK = chapters(Path(__file__).parent.parent)
HUGE = 10**5000  # Python refuses to write it
NOT_WHOLE = (-1, HUGE, -HUGE, 2**63, 1.5, 64.0, math.nan, math.inf, "many", "5", None, True, [2])
NOT_REAL = (math.nan, math.inf, -math.inf, -1.0, HUGE, "many", "1.0", None, True, [1.0])
TOO_LONG = ("contexts", "steps", "repetitions", "features", "starts")  # also at 10**12
SECONDS = 5


@contextmanager
def at_once():
    """Fails what computes longer than a refusal may: it has begun to work."""

    def late(*_):
        raise AssertionError(f"not refused within {SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process: others may be busy, too
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def refused(action, name):
    """The message of a refusal, which names the argument and says in one line what is allowed."""
    with at_once(), pytest.raises(Refused) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    assert re.search(rf"(^|\W){name}", message), message
    assert re.search("allowed|needed|needs|must|cannot|no such|at least|only", message), message
    return message


def wrong(parameter):
    """Values that a chapter's parameter cannot have."""
    kind = parameter.kind.name
    values = {"integer": NOT_WHOLE, "float": NOT_REAL}[kind]
    return (*values, 10**12) if parameter.name in TOO_LONG else values


CHAPTERS = [
    pytest.param(name, parameter.name, value, id=f"{name}-{parameter.name}-{brief(value)[:12]}")
    for name, chapter in BOOK.items()
    for parameter in chapter.parameters()
    for value in wrong(parameter)
]


@pytest.mark.parametrize(("name", "parameter", "value"), CHAPTERS)
def test_a_chapter_refuses_a_value_before_it_works(name, parameter, value):
    values = BOOK[name].values({}) | {parameter: value}
    experiment = import_module(f"icl.experiments.{name.replace('-', '_')}")
    message = refused(lambda: experiment.run(**values), parameter)
    assert message.startswith(f"{parameter}="), message


def test_these_are_hundreds():
    assert len(CHAPTERS) >= 400


TASK = SparseLinear(4, 2, 8)
CONTEXTS = draw(TASK, 20, "evaluate", 0)
MODEL = load("workhorse-3").model


def every(make, name, values):
    return [pytest.param(lambda v=v: make(v), name, id=f"{name}={brief(v)[:14]}") for v in values]


FUNCTIONS = [
    *(
        case
        for name in ("d", "s", "n")
        for case in every(lambda v, name=name: SparseLinear(**{name: v}), name, NOT_WHOLE)
    ),
    *every(lambda v: SparseLinear(noise=v), "noise", NOT_REAL),
    *every(lambda v: SparseLinear(d=v), "d", (10**6, 10**12)),
    *every(
        lambda v: SparseLinear(covariance=v),
        "covariance",
        ((1.0,), (-1.0,) * 8, (math.nan,) * 8, (math.inf,) * 8, ((1.0, 2.0),) * 2),
    ),
    *every(lambda v: Nonlinear(8, 32, v, "sign"), "noise", NOT_REAL),
    *every(lambda v: Nonlinear(v, 32, 0.5, "sign"), "d", NOT_WHOLE),
    *every(lambda v: Nonlinear(8, 32, 0.5, v), "family", ("sgn", "", None, 3)),
    *(
        case
        for name in ("steps", "batch")
        for case in every(lambda v, name=name: Recipe(**{name: v}), name, NOT_WHOLE)
    ),
    *every(lambda v: Recipe(steps=v), "steps", (10**12, 1e12)),
    *(
        case
        for name in ("lr", "warmup", "weight_decay", "clip", "init_scale")
        for case in every(lambda v, name=name: Recipe(**{name: v}), name, NOT_REAL)
    ),
    *every(lambda v: Recipe(warmup=v), "warmup", (1, 1.0, 2)),
    *every(lambda v: Recipe(betas=v), "betas", ((), (0.9,), (0.9, 1.0), (0.9, math.nan), 0.9)),
    *every(lambda v: Recipe(lengths=v), "lengths", ((8,), (8, 4), (0, 4), (1.5, 4), ("a", 4), 8)),
    *every(lambda v: Recipe(optimiser=v), "optimiser", ("adma", "", None)),
    *every(lambda v: Recipe(precision=v), "precision", ("half", "", None)),
    *(
        case
        for name in ("d", "d_head", "d_model")
        for case in every(lambda v, name=name: Architecture(**{name: v}), name, NOT_WHOLE)
    ),
    *every(lambda v: Architecture(heads=v), "heads", ((), (0,), (8, -1), (1.5,), ("a",), 8)),
    *every(lambda v: Architecture(attention=v), "attention", ("softmx", "", None)),
    *every(lambda v: Architecture(norm=v), "norm", ("yes", None, 3)),
    *every(lambda v: build(Architecture(d_model=v)), "n_models", (10**12,)),
    *every(lambda v: build(Architecture(), v), "n_models", (0, -1, 1.5, 10**12)),
    *every(lambda v: build(Architecture(), 2).initialise(v, 1.0), "seeds", ((), (1,), (1, 2, 3))),
    *every(lambda v: Ridge(v), "penalty", (0, *NOT_REAL)),
    *every(lambda v: Lasso(v), "penalty", (0, *NOT_REAL)),
    *every(lambda v: Lasso(0.1, max_sweeps=v), "max_sweeps", NOT_WHOLE),
    *(
        case
        for kind in (GradientDescent, PreprocessedGD, ReweightedGD)
        for case in (
            *every(lambda v, kind=kind: kind(v, 1.0), "steps", (0, 2.5, *NOT_WHOLE)),
            *every(lambda v, kind=kind: kind(2, v), "rate", (math.nan, math.inf, "a", None)),
        )
    ),
    *(
        case
        for build_ in (gradient_descent, preprocess_then_optimise)
        for case in (
            *every(lambda v, b=build_: b(4, v, 0.1), "steps", (0, 10**9, *NOT_WHOLE)),
            *every(lambda v, b=build_: b(4, 2, v), "rate", (math.nan, math.inf, "a", None)),
            *every(lambda v, b=build_: b(v, 2, 0.1), "d", NOT_WHOLE),
        )
    ),
    *every(lambda v: Split(v), "step_rate", (0, *NOT_REAL)),
    *every(lambda v: Start("flagship", "", v), "keep", ("best", "", None)),
    *every(lambda v: draw(TASK, v, "evaluate", 0), "contexts", (0, 10**12, *NOT_WHOLE)),
    *every(lambda v: draw(TASK, 2, "evaluate", v), "seed", NOT_WHOLE),
    *every(lambda v: draw(TASK, 2, "evaluate", 0, queries=v), "queries", NOT_WHOLE),
    *every(lambda v: draw(TASK, 2, v, 0), "stream", ("test", "", None)),
    *every(lambda v: generator("train", 0, v), "step", NOT_WHOLE),
    *every(lambda v: check(v, 0), "contexts", (0, 1, 10**12, *NOT_WHOLE)),
    *every(lambda v: check(20, v), "seed", NOT_WHOLE),
    *every(lambda v: lower_bound(8, v, 9), "heads", NOT_WHOLE),
    *every(lambda v: most_readable(8, 2, v), "d_head", NOT_WHOLE),
    *every(lambda v: paired_error(SparseLinear(values="signs"), v), "heads", (0, 9, *NOT_WHOLE)),
    *every(lambda v: best_layer(SparseLinear(values="signs"), v, 9), "heads", (0, *NOT_WHOLE)),
    *every(lambda v: polynomials.monomials(v), "degree", (0, 6, *NOT_WHOLE)),
    *every(lambda v: signed_permutations(4, v), "count", (0, *NOT_WHOLE)),
    *every(lambda v: Symmetrised(MODEL, v), "count", (0, *NOT_WHOLE)),
    *every(lambda v: choose("model", v, ["a", "b"]), "model", ("c", "", None, HUGE, ["a"])),
    *every(lambda v: fits("contexts", v, 1e6), "contexts", (10**12, HUGE)),
    *every(lambda v: writable(v), "output", ("", " ", "/dev/null/x", "/proc/x", "a\0b", "x" * 300)),
    *every(
        lambda v: writable_file(v, ".safetensors.xz"),
        "output",
        (
            "",
            "m.pt",
            "/dev/null/m.safetensors.xz",
            "a\0.safetensors.xz",
            "x" * 300 + ".safetensors.xz",
        ),
    ),
    *every(lambda v: load(v), "", ("none.safetensors.xz", "/dev/null/x.safetensors.xz")),
    *every(lambda v: load(v), "model", ("workhorse", "", "../flagship")),
    *every(lambda v: PosteriorMean(v), "", (SparseLinear(noise=0), SparseLinear(prior=(1.0,) * 8))),
    *every(lambda v: estimate(torch.ones(4, 40), v), "average", ("average", "", None)),
    *every(
        lambda v: reduction(torch.ones(40), torch.ones(40), v), "average", ("average", "", None)
    ),
    *every(lambda v: over_seeds(v), "values", (torch.ones(1), torch.ones(2, 3))),
    *every(lambda v: heads.importance(MODEL, CONTEXTS, v), "fill", ("median", "", None)),
    *every(lambda v: gram_moments(v), "values", (SparseLinear(values="gaussian"),)),
    *every(lambda v: Iteration(v), "coefficients", (torch.ones(3), torch.ones(1, 0, 13))),
    *every(lambda v: moments.optimum(v, ()), "", (SparseLinear(prior=(1.0,) * 8),)),
    *every(lambda v: Plan(Configuration()).adjusted(steps=v), "steps", (0, -1, 1.5)),
    *every(lambda v: begin(Configuration(), v), "seed", ((-1,), ("a",), (1.5,))),
]


@pytest.mark.parametrize(("action", "name"), FUNCTIONS)
def test_a_function_refuses_a_value(action, name):
    refused(action, name)


# Whatever a file of JSON can hold.
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_settings_of_any_kind_are_taken_or_refused(data):
    """One setting of one kind at a time is anything at all."""
    kind = data.draw(st.sampled_from([SparseLinear, Recipe, Architecture, Nonlinear]))
    usual = {"d": 8, "n": 32, "noise": 0.5, "family": "sign"} if kind is Nonlinear else {}
    name = data.draw(st.sampled_from([field.name for field in fields(kind)]))
    value = data.draw(ANYTHING)
    try:
        made = kind(**(usual | {name: value}))
    except Refused as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    again = kind(**{field.name: getattr(made, field.name) for field in fields(kind)})
    assert again == made
    hash(made)


@given(value=st.integers() | st.floats() | st.text(max_size=3), least=st.integers(-5, 5))
def test_whole_numbers_are_told_from_all_else(value, least):
    good = isinstance(value, int) and least <= value < 2**63
    try:
        whole("x", value, least)
    except Refused:
        assert not good
    else:
        assert good


@given(value=st.floats(), low=st.integers(-3, 0), high=st.integers(1, 3), ends=st.sampled_from(["()", "[]", "(]", "[)"]))  # fmt: skip  # noqa: E501
def test_real_numbers_are_told_from_all_else(value, low, high, ends):
    good = low < value < high or (value == low and ends[0] == "[")
    good = good or (value == high and ends[1] == "]")
    try:
        real("x", value, f"{ends[0]}{low}, {high}{ends[1]}")
    except Refused:
        assert not good
    else:
        assert good


@pytest.mark.parametrize("number", [np.int64(3), np.int32(3)])
def test_numbers_of_numpy_are_numbers(number):
    assert SparseLinear(d=number).d == 3


def test_steps_of_zero_are_refused_not_ignored():
    with pytest.raises(Refused, match="steps=0"):
        Plan(Configuration()).adjusted(steps=0)


def test_a_container_has_no_more_memory_than_it_is_given(tmp_path, monkeypatch):
    given = tmp_path / "memory.max"
    monkeypatch.setattr(errors, "LIMIT", given)
    everything = free_memory()
    given.write_text("1000\n")
    assert free_memory() == 1000 < everything
    given.write_text("max\n")
    assert free_memory() > 1000


def test_what_fits_in_memory_is_estimated_before_it_is_taken(monkeypatch):
    """The refusal says how many would fit; so many are then taken."""
    message = refused(lambda: draw(TASK, 10**11, "evaluate", 0), "contexts")
    most = int(re.search(r"allowed are up to (\d+)", message)[1])
    assert 10**4 < most < 10**11
    gram = 8 * (TASK.d + 1) ** 2
    monkeypatch.setattr("icl.errors.free_memory", lambda: 1000 * gram)
    monkeypatch.setattr("icl.errors.NOTHING", 0)
    message = refused(lambda: draw(TASK, 1001, "evaluate", 0), "contexts")
    most = int(re.search(r"allowed are up to (\d+)", message)[1])
    assert most < 1000
    assert len(draw(TASK, most, "evaluate", 0)) == most


def test_checkpoints_that_do_not_belong_together_are_refused():
    one, other = load("heads-1-3"), load("heads-2-3")
    with pytest.raises(Refused, match="one configuration"):
        join(one, other)
    with pytest.raises(Refused, match=r"seeds=\[77\]"):
        one.only((77,))


def test_unusable_pairs_are_refused():
    with pytest.raises(Refused, match="queries"):
        excess_risk(build(Architecture(4, attention="relu")), CONTEXTS)
    assert symmetry.signed_permutations(4, 2).shape == (2, 4, 4)
