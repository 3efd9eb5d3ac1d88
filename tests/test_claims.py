"""Claims and verdicts."""

import json
import math

import pytest
import torch

from icl.claims import (
    CONDITIONAL,
    MIME,
    NOT_REPRODUCED,
    REPRODUCED,
    UNDECIDED,
    Claim,
    Criterion,
    Finding,
    Judged,
)
from icl.errors import Refused
from icl.experiments import experiments
from icl.intervals import Estimate, over_contexts, over_seeds
from icl.words import FALL, PERCENT

MADE = Claim(
    "A0",
    "nobody, 2024",
    "Two numbers are large.",
    (
        Criterion(
            "first number",
            lambda pair: pair[0],
            0.5,
            "A half is large enough for a first.",
            said="the first number is {}",
        ),
        Criterion(
            "second number",
            lambda pair: pair[1],
            0.0,
            "Zero is large enough for a second.",
            said="the second number is {}",
            unit=PERCENT,
        ),
    ),
)
CLAIMS = {claim.id: claim for found in experiments().values() for claim in found.CLAIMS}

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
    verdict = MADE.judge(settings)
    assert verdict.outcome == outcome
    assert set(verdict.settings) == set(settings)


@pytest.mark.parametrize(
    ("low", "high", "decision"),
    [
        (0.51, 0.9, REPRODUCED),
        (0.5, 0.9, UNDECIDED),  # an end on the threshold is not beyond it
        (0.4, 0.9, UNDECIDED),  # with a mean above
        (0.1, 0.6, UNDECIDED),  # with a mean below
        (0.1, 0.5, UNDECIDED),
        (0.1, 0.49, NOT_REPRODUCED),
    ],
)
def test_the_whole_interval_must_be_beyond_the_threshold(low, high, decision):
    middle = (low + high) / 2
    found = Finding("a", MADE.criteria[0], "", Estimate(middle, low, high, middle), 5)
    assert found.decision == decision


def test_what_fails_weighs_more_than_what_is_open():
    """In one setting, whichever criterion comes first."""
    for pair in ((WIDE, MINUS), (BELOW, PLUS - 0.2 + 0.3 * (WIDE - 0.5))):
        verdict = MADE.judge({"a": pair})
        assert {f.decision for f in verdict.findings} == {UNDECIDED, NOT_REPRODUCED}
        assert verdict.settings == {"a": NOT_REPRODUCED}
    assert MADE.judge({"a": (WIDE, PLUS)}).settings == {"a": UNDECIDED}


@pytest.mark.parametrize(("count", "where"), [(4, "s0; s1; s2; s3"), (5, "5 of 6 settings")])
def test_as_many_settings_are_named_as_a_sentence_holds(count, where):
    settings = {f"s{i}": (ABOVE, PLUS) for i in range(count)} | {"last": (BELOW, PLUS)}
    assert MADE.judge(settings).where == where


def test_a_verdict_shows_its_numbers_and_feeds_the_scorecard():
    verdict = MADE.judge({"small": (ABOVE, MINUS), "large": (ABOVE, PLUS)})
    shown = verdict._repr_mimebundle_()
    for criterion, mean in zip(MADE.criteria, ("0.900", "−0.200"), strict=True):
        assert criterion.statistic in shown["text/markdown"]
        assert criterion.reason in shown["text/markdown"]
        assert mean in shown["text/markdown"]
    about = json.loads(shown[MIME])
    assert about["said"] == "The second number is −20 % (small) to 20 % (large)", "what decides"
    assert about["needed"] == "more than 0 %"
    assert about["headline"] == f"{CONDITIONAL} (large)"
    assert [f["decision"] for f in about["findings"]] == [f.decision for f in verdict.findings]
    assert about["findings"][1]["value"] == pytest.approx(-0.2)
    assert about["findings"][1]["threshold"] == 0


def test_a_number_is_found_by_its_setting_and_criterion():
    verdict = MADE.judge({"small": (ABOVE, MINUS), "large": (ABOVE, PLUS)})
    assert [str(verdict.at(*at)) for at in (("small", 1), ("large", 1))] == ["−20 %", "20 %"]
    assert verdict.at("small").estimate == verdict.of(MADE.criteria[0])[0].estimate
    with pytest.raises(Refused, match="place='smal': allowed are small, large; did you mean small"):
        verdict.at("smal")


def test_of_many_settings_the_ends_and_their_number_are_quoted():
    many = {f"s{i}": (ABOVE, PLUS + i) for i in range(5)} | {"s5": (ABOVE, MINUS)}
    verdict = MADE.judge(many | {"dead": (ABOVE, MINUS * torch.nan)})
    assert verdict.headline == f"{CONDITIONAL} (5 of 7 settings)"
    assert verdict.to_dict()["said"] == "The second number is −20 % (s5) to 420 % (s4)"


def test_a_finding_quotes_the_deciding_statistic_only():
    text = Judged({"A0": MADE.judge({"small": (ABOVE, MINUS)})}).finding
    assert text.startswith("**Not reproduced.** “Two numbers are large.” (A0) The second number is")
    assert "−20 % [−22 % to −18 %] (small); needed: more than 0 %." in text
    assert "first number" not in text
    text = Judged({"A0": MADE.judge({"small": (ABOVE, PLUS), "large": (ABOVE, MINUS)})}).finding
    assert "Reproduced under conditions (small)" in text


def test_what_is_said_to_fall_is_said_from_the_lowest():
    fall = Criterion("−x", lambda x: -x, -0.1, "A tenth is little.", said="x is {}", unit=FALL)
    verdict = Claim("A0", "nobody, 2024", "It is little.", (fall,)).judge({"a": BELOW, "b": ABOVE})
    assert verdict.to_dict()["said"] == "X is 20 % (a) to 90 % (b)"
    assert verdict.outcome == NOT_REPRODUCED


def test_thresholds_have_reasons_and_every_claim_is_made_once():
    made = [claim for found in experiments().values() for claim in found.CLAIMS]
    assert len(CLAIMS) == len(made)
    assert {f"A{i}" for i in range(1, 10)} | {"B1", "B2", "B3"} <= set(CLAIMS)
    for claim in made:
        assert claim.statement.endswith(".")
        assert all(len(criterion.reason) > 30 for criterion in claim.criteria)
        assert all(criterion.measure.__doc__ for criterion in claim.criteria)
        assert all("{}" in c.said and c.said != Criterion.said for c in claim.criteria)


LAYERED = Claim(
    "A0",
    "nobody, 2024",
    "Every layer counts.",
    (Criterion("a number", lambda found: found, 0.5, "A half is enough.", bounds=(0.0, 1.0)),),
)


def test_every_part_of_a_criterion_must_pass_at_a_corrected_level():
    both = LAYERED.judge({"m": {"layer 2": ABOVE, "layer 3": ABOVE}})
    assert both.outcome == REPRODUCED
    assert [f.place for f in both.findings] == ["m, layer 2", "m, layer 3"]
    assert LAYERED.judge({"m": {"layer 2": ABOVE, "layer 3": BELOW}}).outcome == NOT_REPRODUCED
    assert LAYERED.judge({"m": {"layer 2": WIDE, "layer 3": ABOVE}}).outcome == UNDECIDED
    barely = torch.tensor([0.531, 0.551, 0.571])  # its interval is above alone, not beside another
    assert LAYERED.judge({"m": barely}).outcome == REPRODUCED
    assert LAYERED.judge({"m": {"one": barely, "two": ABOVE}}).outcome == UNDECIDED


def test_intervals_stay_within_what_a_statistic_can_be():
    (found,) = LAYERED.judge({"m": WIDE}).findings
    assert (found.estimate.low, found.estimate.high) == (0.0, 1.0)


def test_a_ratio_whose_seeds_differ_by_orders_of_magnitude_is_judged_by_its_logarithm():
    factors = torch.tensor([3.0, 4.0, 6.0, 12.0, 100.0])
    ratio = Criterion("ratio", lambda found: found, 1.1, "A tenth is enough.", ratio=True)
    [(_, found, seeds)] = ratio.estimates(factors, shared=False)
    logs = over_seeds(factors.double().log())
    assert seeds == 5
    assert found.value == pytest.approx(factors.log().mean().exp().item())
    assert (found.low, found.high) == pytest.approx((math.exp(logs.low), math.exp(logs.high)))
    assert found.low > ratio.threshold, "so it is decided"
    assert over_seeds(factors).low < 0, "what no ratio can be"


def test_contexts_widen_the_interval_of_a_ratio_on_its_logarithm():
    risks = torch.rand(3, 400, generator=torch.Generator().manual_seed(0)).double() + 1.0
    ratio = Criterion("ratio", lambda x: x.mean(dim=-1), 1.1, "A tenth is enough.", ratio=True)
    (_, alone, _), (_, both, _) = (*ratio.estimates(risks, False), *ratio.estimates(risks, True))
    spread = over_contexts(lambda x: x.mean(dim=-1).log(), risks).item()
    logs = over_seeds(risks.mean(dim=-1).log(), variance=spread)
    assert (both.low, both.high) == pytest.approx((math.exp(logs.low), math.exp(logs.high)))
    assert both.low < alone.low < alone.high < both.high


def test_contexts_that_seeds_share_widen_the_interval():
    mean = Criterion("mean", lambda x: x.mean(dim=-1), 0.5, "A half is enough.")
    claim = Claim("A0", "nobody, 2024", "The mean is large.", (mean,))
    rng = torch.Generator().manual_seed(0)
    contexts = 0.6 + torch.randn(60, generator=rng)
    found = contexts + torch.tensor([[0.0], [0.01], [-0.01]])
    (alone,), (both,) = (claim.judge({"m": found}, x).findings for x in (False, True))
    assert alone.estimate.value == both.estimate.value
    standard = contexts.std().item() / 60**0.5
    assert (both.estimate.high - both.estimate.value) / 4.303 == pytest.approx(standard, rel=0.4)
    assert alone.decision == REPRODUCED
    assert both.decision == UNDECIDED


def test_the_headline_is_of_the_criterion_that_fewest_settings_pass():
    settings = {"a": (ABOVE, MINUS), "b": (ABOVE, MINUS), "c": (BELOW, PLUS)}
    verdict = MADE.judge(settings)
    assert verdict.deciding.statistic == "second number"
    assert "The second number is" in verdict.sentence
    assert MADE.judge({"a": (BELOW, MINUS)}).deciding.statistic == "first number", "a tie"


def test_a_claim_that_is_nowhere_defined_says_so():
    verdict = MADE.judge({"dead": (ABOVE * torch.nan, PLUS)})
    assert "undefined in every setting" in verdict.sentence
    assert verdict.outcome == UNDECIDED


def test_a_claim_without_a_setting_is_refused():
    with pytest.raises(Refused, match="at least one setting"):
        MADE.judge({})


def test_an_exact_statistic_is_judged_and_said_to_be_exact():
    claim = Claim("X1", "no one", "It is so.", (Criterion("value", torch.tensor, 0.5, "Half."),))
    assert claim.judge({"here": 0.6}).outcome == REPRODUCED
    verdict = claim.judge({"here": 0.4})
    assert verdict.outcome == NOT_REPRODUCED
    assert "0.4 (here); needed: more than 0.5." in verdict.sentence
    text = verdict._repr_mimebundle_()["text/markdown"]
    assert "| here | not reproduced | 0.400 | 1 |" in text
