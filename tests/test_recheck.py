"""Verdicts on the contexts of other evaluation seeds: executed, recorded and shown."""

import json
from types import SimpleNamespace

import nbformat
import pytest
import torch

from icl.claims import CHEN, NOT_REPRODUCED, REPRODUCED, Claim, Criterion
from icl.errors import Failed, Refused
from icl.experiments import experiments
from icl.site import chapters, pages, recheck

MADE = Claim("A1", CHEN, "It is so.", (Criterion("gap", lambda x: x, 0.5, "Why."),))
JUDGES = """
import torch
from icl.claims import CHEN, Claim, Criterion
made = Claim("A1", CHEN, "It is so.", (Criterion("gap", lambda x: x, 0.5, "Why."),))
one, other = torch.tensor([1.0, 1.01]), torch.tensor([0.0, 0.01]) + (seed == 100)
made.judge({"one": one, "other": other})
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A book of a chapter that judges, by its seed, and of one that does not."""
    for name, source in {"judging": JUDGES, "silent": "raise RuntimeError"}.items():
        cells = [nbformat.v4.new_code_cell(x) for x in ("seed: int = 1  # a seed", source)]
        cells[0].metadata["tags"] = ["parameters"]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "x",
            "language": "python",
        }
        path = tmp_path / "book" / f"{name}.ipynb"
        path.parent.mkdir(exist_ok=True)
        nbformat.write(notebook, path)
    (path.parent / "_static").mkdir()
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/judging\nchapters:\n  - file: book/silent\n"
    )
    claims = {"judging": SimpleNamespace(CLAIMS=(MADE,)), "silent": SimpleNamespace(CLAIMS=())}
    monkeypatch.setattr(recheck, "experiments", lambda: claims)
    return tmp_path


def test_every_verdict_is_reached_again_with_every_seed_and_written_down(book):
    said = []
    assert recheck.recorded(book) == {}
    file = recheck.recheck(book, (100, 200), say=said.append)
    assert json.loads(file.read_text()) == recheck.recorded(book)
    found = recheck.recorded(book)["A1"]
    assert found["outcome"] == {"100": REPRODUCED, "200": "reproduced under conditions"}
    assert found["settings"]["one"] == {"100": REPRODUCED, "200": REPRODUCED}
    assert found["settings"]["other"] == {"100": REPRODUCED, "200": NOT_REPRODUCED}
    assert said == ["executing judging, seed 100 ...", "executing judging, seed 200 ..."]
    recheck.recheck(book, (100, 200), say=said.append)
    assert len(said) == 2, "what has not changed is not executed again"
    with pytest.raises(Refused, match="different seeds"):
        recheck.recheck(book, (1, 1))


def test_one_chapter_alone_leaves_what_is_known_of_others(book):
    known = {"A0": {"outcome": {"100": REPRODUCED}, "settings": {}}, "A1": {"outcome": {}}}
    (book / "book" / "_static" / "verdicts.json").write_text(json.dumps(known))
    recheck.recheck(book, (200,), ("judging",), lambda _: None)
    found = recheck.recorded(book)
    assert found["A0"] == known["A0"]
    assert found["A1"]["outcome"] == {"200": "reproduced under conditions"}
    with pytest.raises(Refused, match=r"chapter='jugding': allowed are .*; did you mean judging"):
        recheck.recheck(book, (200,), ("jugding",))
    recheck.recheck(book, (200,), (), lambda _: None)
    assert recheck.recorded(book).keys() == {"A1"}, "all are known anew"


def test_what_cannot_be_written_down_leaves_what_was_known(book, monkeypatch):
    recheck.recheck(book, (100,), (), str)
    known = recheck.recorded(book)

    def full(path, *_, **__):
        path.write_bytes(b"{")
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("pathlib.Path.write_text", full)
        with pytest.raises(Failed, match="no space left"):
            recheck.recheck(book, (100,), (), str)
    assert recheck.recorded(book) == known


def test_the_page_says_which_verdicts_and_settings_differ():
    high, low = torch.tensor([1.0, 1.01]), torch.tensor([0.0, 0.01])
    here = MADE.judge({"one": high, "other": low}).to_dict()
    both = {"100": REPRODUCED, "200": REPRODUCED}
    conditional = {"100": here["outcome"], "200": REPRODUCED}
    there = {"A1": {"outcome": conditional, "settings": {"one": both, "other": both}}}
    row = pages.rechecked([("c", here)], there).splitlines()[2]
    assert "the same on 1 of 2 seeds, reproduced on seed 200" in row
    assert "| 1 of 2 |" in row
    assert "other: the same on 0 of 2 seeds" in row
    assert "one:" not in row
    unchecked = pages.rechecked([("c", here)], {})
    assert "not checked" in unchecked
    assert "2 of 2" not in unchecked, "nothing agrees with what was not run"


def test_the_verdicts_of_the_book_stand_on_five_other_seeds():
    claims = {claim.id for found in experiments().values() for claim in found.CLAIMS}
    found = recheck.recorded(chapters.root())
    assert found.keys() == claims
    for claim in found.values():
        assert claim["outcome"].keys() == set(map(str, recheck.SEEDS))
    moved = {name for name, claim in found.items() if len(set(claim["outcome"].values())) > 1}
    assert not moved
