"""Work on several threads: the same bits as on one, and nothing of it stays when it is done."""

import threading

import pytest
import torch

from icl.architecture import Architecture
from icl.bayes import PosteriorMean
from icl.contexts import draw
from icl.heads import importance
from icl.intervals import over_contexts, trimmed
from icl.predictors import excess_risk
from icl.probing import probe_risks
from icl.tasks import SparseLinear
from icl.threads import one_thread, side_by_side
from icl.transformer import build

TASK = SparseLinear(d=4, s=1, n=12, noise=0.5)
CONTEXTS = draw(TASK, 300, "evaluate", seed=1, queries=3)


@pytest.fixture(autouse=True)
def three_threads():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


def test_parts_are_worked_on_at_once_each_on_a_thread_of_its_own():
    all_are_there = threading.Barrier(3)  # which lets nobody on before three have come

    def work(part):
        all_are_there.wait(timeout=20)
        return part, threading.get_ident(), torch.get_num_threads()

    parts, workers, threads = zip(*side_by_side(work, range(3)), strict=True)
    assert parts == (0, 1, 2)
    assert len({*workers, threading.get_ident()}) == 4
    assert threads == (1, 1, 1)
    assert torch.get_num_threads() == 3


def test_results_are_in_the_order_of_the_parts_not_in_that_in_which_they_end():
    second_is_done = threading.Event()

    def work(part):
        second_is_done.set() if part else second_is_done.wait(timeout=20)
        return part

    assert side_by_side(work, [0, 1]) == [0, 1]
    assert side_by_side(work, iter([])) == []


def test_on_one_thread_nothing_else_is_started():
    with one_thread():
        workers = side_by_side(lambda _: threading.get_ident(), range(4))
    assert {*workers} == {threading.get_ident()}
    assert torch.get_num_threads() == 3


def test_what_fails_fails_here_and_the_threads_are_given_back():
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda part: 1 / part, range(9))
    assert torch.get_num_threads() == 3


def test_parts_may_have_parts():
    def work(part):
        return side_by_side(lambda x: (part, x), range(2))

    assert side_by_side(work, "ab") == [[("a", 0), ("a", 1)], [("b", 0), ("b", 1)]]


@pytest.mark.parametrize("recorded", [True, False])
def test_gradients_are_recorded_where_they_would_be_on_one_thread(recorded):
    weight = torch.ones((), requires_grad=True)
    with torch.set_grad_enabled(recorded):
        found = side_by_side(lambda x: x * weight, [2.0, 3.0])
    assert [x.requires_grad for x in found] == [recorded] * 2
    if recorded:
        sum(found).backward()
        assert weight.grad == 5


@pytest.mark.parametrize("attention", ["linear", "softmax"])
def test_measurements_have_the_same_bits_on_any_number_of_threads(attention):
    model = build(Architecture(4, (3, 2), 3, 8, attention), 2).initialise((0, 1), 0.7)

    def measured():
        found = importance(model, CONTEXTS, fill="mean")
        return {
            "risk": excess_risk(model, CONTEXTS),
            "risk without heads": found.masked,
            "probes": probe_risks(model, CONTEXTS, CONTEXTS),
            "Bayes": PosteriorMean(TASK).weights(CONTEXTS),
            "variance": over_contexts(lambda x: trimmed(x, dim=-1), found.full),
        }

    with torch.no_grad():
        several = measured()
        with one_thread():
            alone = measured()
    for what, value in alone.items():
        assert torch.equal(several[what].nan_to_num(-1), value.nan_to_num(-1)), what
