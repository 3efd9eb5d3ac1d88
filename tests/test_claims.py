"""Claims and verdicts."""

import json

import pytest
import torch

from icl import pages
from icl.claims import CLAIMS
from icl.errors import Refused
from icl.verdicts import CONDITIONAL, MIME, NOT_REPRODUCED, REPRODUCED, UNDECIDED, judge

ABOVE, AROUND, BELOW = (torch.tensor([x, x + 0.01, x - 0.01]) for x in (0.9, 0.5, 0.2))
WIDE = torch.tensor([0.0, 0.5, 1.0])
PLUS, MINUS = (torch.tensor([x, x + 0.01, x - 0.01]) for x in (0.2, -0.2))


@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ({"a": (ABOVE, PLUS), "b": (ABOVE, PLUS)}, REPRODUCED),
        ({"a": (ABOVE, PLUS), "b": (BELOW, PLUS)}, CONDITIONAL),
        ({"a": (ABOVE, PLUS), "b": (WIDE, PLUS)}, CONDITIONAL),
        ({"a": (ABOVE, MINUS)}, NOT_REPRODUCED),
        ({"a": (BELOW, PLUS), "b": (BELOW, MINUS)}, NOT_REPRODUCED),
        ({"a": (BELOW, PLUS), "b": (WIDE, PLUS)}, UNDECIDED),
        ({"a": (WIDE, PLUS), "b": (AROUND, PLUS)}, UNDECIDED),
        ({"a": (ABOVE * torch.nan, PLUS)}, UNDECIDED),
    ],
)
def test_a_claim_needs_every_criterion_and_names_its_conditions(settings, outcome):
    verdict = judge("A3", settings)
    assert verdict.outcome == outcome
    assert set(verdict.settings) == set(settings)


def test_a_verdict_shows_its_numbers_and_feeds_the_scorecard():
    verdict = judge("A3", {"small": (ABOVE, MINUS), "large": (ABOVE, PLUS)})
    shown = verdict._repr_mimebundle_()
    for criterion, mean in zip(CLAIMS["A3"].criteria, ("0.900", "−0.200"), strict=True):
        assert criterion.statistic in shown["text/markdown"]
        assert criterion.reason in shown["text/markdown"]
        assert mean in shown["text/markdown"]
    card = pages.scorecard([("some-chapter", json.loads(shown[MIME]))])
    for word in ("[A3](some-chapter)", CONDITIONAL, "small", "−0.200", "0.200", "above 0 |"):
        assert word in card
    assert "0.900" not in card, "only the criterion that decides is quoted"
    assert len(card.splitlines()) == 2 + 1
    assert f"**{CONDITIONAL} (`large`)** |" in card.splitlines()[2]


def test_of_many_settings_the_ends_and_their_number_are_quoted():
    many = {f"s{i}": (ABOVE, PLUS + i) for i in range(5)} | {"s5": (ABOVE, MINUS)}
    verdict = judge("A3", many | {"dead": (ABOVE, MINUS * torch.nan)})
    assert verdict.headline == f"{CONDITIONAL} (5 of 7 settings)"
    assert verdict.numbers(CLAIMS["A3"].criteria[1]).startswith("−0.200")
    assert "(`s5`) to 4.200" in verdict.numbers(CLAIMS["A3"].criteria[1])


def test_thresholds_have_reasons_and_ids_are_their_own():
    for name, claim in CLAIMS.items():
        assert claim.id == name
        assert claim.statement.endswith(".")
        assert all(len(criterion.reason) > 30 for criterion in claim.criteria)


def test_unknown_claims_and_missing_statistics_are_refused():
    with pytest.raises(Refused, match="did you mean A3"):
        judge("A33", {})
    with pytest.raises(Refused, match="2 criteria"):
        judge("A3", {"a": (ABOVE,)})
