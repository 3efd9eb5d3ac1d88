"""Exponents of risks in the number of examples, of features and of weights."""

import math
from dataclasses import replace

import pytest
import torch

from icl.contexts import draw
from icl.errors import Refused
from icl.experiments.scaling import (
    GRIDS,
    NETWORKS,
    THEIRS,
    expected,
    exponent,
    measured,
    networks,
    run,
)
from icl.files import load
from icl.intervals import trimmed
from icl.moments import mean_risk, optimum
from icl.polynomials import monomials
from icl.predictors import excess_risk
from icl.tasks import SparseLinear


def test_the_exponent_of_a_power_is_the_power():
    powers = torch.tensor([-1.0, 0.5, 2.0]).double()
    risks = {x: 3 * x**powers for x in (8, 16, 64)}
    torch.testing.assert_close(exponent(risks), powers)
    steep = exponent({2: torch.tensor(1.0), 4: torch.tensor(4.0), 8: torch.tensor(16.0)})
    assert steep.item() == pytest.approx(2)


def test_rates_have_the_exponents_that_they_say():
    plain, sparse = expected(GRIDS).values()
    assert [plain[what].value for what in GRIDS] == pytest.approx([-1, 1, 0])
    assert sparse["examples n"].value == pytest.approx(-1)
    assert sparse["weights s"].value == pytest.approx(1)
    assert 0 < sparse["features d"].value < 0.5
    logs = {d: torch.tensor(math.log(d)) for d in GRIDS["features d"]}
    assert sparse["features d"].value == pytest.approx(exponent(logs).item())


def test_every_grid_varies_one_thing():
    for what, found in GRIDS.items():
        varied = what[-1]
        assert [getattr(task, varied) for task in found.values()] == [*found]
        others = {"n", "d", "s"} - {varied}
        assert len({tuple(getattr(task, x) for x in others) for task in found.values()}) == 1


def test_risks_are_those_of_what_was_tuned_for_the_task():
    task = SparseLinear(4, 1, 16, 1.0, "sphere")
    found = measured(task, 2_000, range(1, 4))
    assert found["ridge"].shape == (3,)
    assert (found["Bayes"] < found["lasso"]).all()
    assert (found["lasso"] < found["ridge"]).all()
    assert found["degree 2"] == mean_risk(task, optimum(task, monomials(2)))


def test_networks_are_judged_where_they_were_trained():
    """All kinds on the same tasks, which differ in what is varied alone."""
    for what, families in NETWORKS.items():
        for family in families.values():
            assert {x: plan.config.task for x, (_, plan) in family.items()} == THEIRS[what]
        for x, task in THEIRS[what].items():
            assert getattr(task, what[-1]) == x
            first = next(iter(THEIRS[what].values()))
            assert replace(task, **{what[-1]: getattr(first, what[-1])}) == first


def test_risks_of_networks_are_those_of_the_shipped_models():
    found = networks("features d", 200, range(1, 3))
    for d in (4, 12):
        model = load(f"s1-noise0.5-888-d{d}").only((0, 1, 2, 3, 4)).model.double()
        batches = [draw(THEIRS["features d"][d], 200, "evaluate", seed) for seed in (1, 2)]
        risks = torch.stack([trimmed(excess_risk(model, batch), dim=-1) for batch in batches])
        torch.testing.assert_close(found[d]["8 heads per layer"], risks.mean(dim=0))
        assert found[d]["ridge"].shape == (2,)


def test_what_cannot_be_repeated_is_refused():
    with pytest.raises(Refused, match="contexts=1: allowed are whole numbers from 2 on"):
        run(1, 3, 1)
    with pytest.raises(Refused, match="repetitions=1: allowed are whole numbers from 2 to 1000"):
        run(40, 1, 1)
