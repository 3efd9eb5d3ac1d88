"""The landing page says what the chapters found, and nothing that they no longer find."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch

from icl.claims import (
    AFTER_CHEN,
    CHEN,
    CONDITIONAL,
    MAHANKALI,
    NOT_REPRODUCED,
    REPRODUCED,
    Claim,
    Criterion,
)
from icl.errors import Failed
from icl.experiments import experiments
from icl.site import scorecard
from icl.site.scorecard import COLOURS, HIGHLIGHTS, Highlight
from icl.words import FALL, PERCENT

GAP = Criterion("gap", lambda x: x, 0.5, "Half.", said="the gap is {}", unit=PERCENT)
CLAIM = Claim("A2", CHEN, "It is so.", (GAP,))
ABOVE, BELOW, WIDE = (torch.tensor([x, x + y]) for x, y in ((0.9, 1e-3), (0.1, 1e-3), (0.2, 0.6)))


def judged(settings, **changed):
    claim = Claim(**vars(CLAIM) | changed)
    return ("chapter", claim.judge(settings).to_dict())


def rows(text):
    return [line for line in text.splitlines() if line.startswith("| [")]


def test_claims_stand_by_paper_in_the_order_of_their_numbers():
    one = {"x": ABOVE}
    ids = [("B1", MAHANKALI), ("A10", CHEN), ("A3e", AFTER_CHEN), ("A2c", CHEN), ("A2", CHEN)]
    text = scorecard.scorecard([judged(one, id=name, paper=paper) for name, paper in ids])
    order = ["[A2]", "[A2c]", "[A10]", "[A3e]", "[B1]"]
    assert [text.index(name) for name in order] == sorted(text.index(name) for name in order)
    assert text.count("| claim | verdict | what was found |") == 3
    assert f"**{CHEN}**" in text


def test_a_claim_of_any_other_paper_comes_last():
    """A fork may judge whatever paper it likes."""
    found = [judged({"x": ABOVE}, id="F1", paper="Somebody, 2030"), judged({"x": ABOVE})]
    text = scorecard.scorecard(found)
    assert text.index("[A2]") < text.index("**Somebody, 2030**") < text.index("[F1]")


def test_a_row_has_a_link_a_badge_and_a_sentence_with_what_is_needed():
    (row,) = rows(scorecard.scorecard([judged({"a": ABOVE, "b": BELOW})]))
    assert "[A2](chapter) It is so." in row
    assert "{bdg-warning}`reproduced under conditions`" in row
    assert "The gap is 10 % (b) to 90 % (a); needed: more than 50 %." in row


def test_dots_are_right_of_the_bar_where_a_setting_passes_and_coloured_by_decision():
    _, verdict = judged({"a": ABOVE, "b": BELOW, "c": WIDE, "dead": ABOVE * torch.nan})
    drawn = ET.fromstring(scorecard.strip(verdict))
    dots = [(float(x.get("cx")), x.get("fill")) for x in drawn.iter("circle")]
    assert [colour for _, colour in dots] == [
        COLOURS[found] for found in (REPRODUCED, NOT_REPRODUCED, "undecided")
    ]
    (high, _), (low, _), (middle, _) = dots
    assert low < 75 < high
    assert low < middle < high
    lines = [x.get("d") for x in drawn.iter() if x.get("stroke-width")]
    ends = [tuple(map(float, re.findall(r"\d+", line.replace(" 8", "")))) for line in lines]
    assert all(low <= at <= high for (low, high), (at, _) in zip(ends, dots, strict=True))
    assert [low < 75 < high for low, high in ends] == [False, False, True], "only where undecided"
    assert drawn.get("aria-label") == "1 of 3 numbers are beyond the threshold"


def test_every_statistic_is_in_the_details():
    second = Criterion("least", lambda x: -x, -0.5, "Half.", said="it is {}", unit=FALL)
    text = scorecard.details([judged({"a": ABOVE, "b": BELOW}, criteria=(GAP, second))])
    first, other = rows(text)
    assert "| gap, above 0.5 | 1 of 2 | 10 % (b) | 90 % (a) |" in first
    assert "| least, above −0.5 | 1 of 2 | 90 % (a) | 10 % (b) |" in other


def test_a_highlight_has_the_numbers_of_its_claim_and_fails_when_the_outcome_is_another():
    found = [judged({"a": ABOVE, "b": BELOW, "c": BELOW})]
    said = Highlight("A2", CONDITIONAL, "{lowest}, {highest}: {passing}/{settings}")
    assert said.text(found) == "- 10 %, 90 %: 1/3 ([A2](chapter))"
    with pytest.raises(Failed, match="A2 is reproduced; it is reproduced under conditions now"):
        Highlight("A2", REPRODUCED, "").text(found)
    with pytest.raises(Failed, match="quotes A7"):
        Highlight("A7", REPRODUCED, "").text(found)


def test_the_highlights_quote_claims_of_the_book():
    claims = {claim.id for found in experiments().values() for claim in found.CLAIMS}
    assert {highlight.claim for highlight in HIGHLIGHTS} <= claims
    assert 4 <= len(HIGHLIGHTS) <= 6


def test_a_page_quotes_what_was_found_in_a_setting_or_at_an_end():
    other = Criterion("other gap", lambda x: {"x": -x, "y": x}, 0.5, "", said="{}", unit=PERCENT)
    found = [judged({"a": ABOVE, "b": BELOW}, criteria=(GAP, other))]
    for place, expected in {
        "a": "90 %",
        "b; 0": "10 %",
        "lowest": "10 %",
        "highest": "90 %",
        "a, x; 1": "-90 %",
        "highest; 1": "90 %",
    }.items():
        text = scorecard.quoted(f"It is {{found}}`A2; {place}`, {{term}}`so`.", found)
        assert text.replace("−", "-") == f"It is {expected}, {{term}}`so`."
    with pytest.raises(Failed, match="a page quotes A7: no chapter judges it"):
        scorecard.quoted("{found}`A7; a`", found)
    with pytest.raises(Failed, match="a page quotes A2 at 'c': known are b; a; lowest; highest"):
        scorecard.quoted("{found}`A2; c`", found)
    for number in ("2", "-1", "x"):
        with pytest.raises(Failed, match=f"criterion {number} of A2: known are 0 to 1"):
            scorecard.quoted(f"{{found}}`A2; a; {number}`", found)
