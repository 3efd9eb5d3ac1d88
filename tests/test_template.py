"""The template that forks copy: a chapter that is right, and in no book."""

import shutil

import matplotlib.pyplot as plt
import pytest
import torch

from icl.claims import CONDITIONAL, NOT_REPRODUCED, REPRODUCED
from icl.contexts import draw
from icl.errors import Refused
from icl.estimators import OLS
from icl.experiments import TEMPLATE, experiments
from icl.experiments.template import CLAIMS, SETTINGS, KeepLargest, advantage, run
from icl.site import build
from icl.site.chapters import chapters, root, toc
from icl.site.recheck import recorded
from icl.tasks import SparseLinear


def test_the_template_runs_as_a_chapter_but_is_in_no_table_of_contents():
    assert TEMPLATE in chapters(root())
    assert TEMPLATE not in toc(root())
    assert TEMPLATE not in experiments()


def test_a_build_leaves_the_template_out_and_refuses_any_other_page_that_is_not_listed(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "intro.md").write_text("# Intro")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/intro\n")
    (tmp_path / "_config.yml").write_text("html: {}\nsphinx: {}\n")
    source = root() / "book" / f"{TEMPLATE}.ipynb"
    shutil.copy(source, tmp_path / "book")
    assert build._execute_changed(tmp_path, tmp_path / "done", print) == {}
    shutil.copy(source, tmp_path / "book" / "mine.ipynb")
    with pytest.raises(Refused, match=r"book/mine.ipynb is not in _toc.yml"):
        build._execute_changed(tmp_path, tmp_path / "done", print)


def test_no_two_claims_share_an_id_and_the_template_s_is_not_rechecked():
    known = [claim.id for found in experiments().values() for claim in found.CLAIMS]
    (own,) = (claim.id for claim in CLAIMS)
    assert len({*known, own}) == len(known) + 1
    assert own not in recorded(root())


def test_only_the_largest_weights_are_kept_whatever_their_sign():
    contexts = draw(SparseLinear(d=6, s=6, n=20), 50, "evaluate", seed=0)
    full = OLS().weights(contexts)
    kept = KeepLargest(2).weights(contexts)
    held = kept != 0
    assert (held.sum(dim=-1) == 2).all()
    assert torch.equal(kept[held], full[held])
    assert (
        full.abs()[held].reshape(50, 2).amin(1) > full.abs()[~held].reshape(50, 4).amax(1)
    ).all()
    assert torch.equal(KeepLargest(6).weights(contexts), full)


def test_the_advantage_is_positive_where_our_risk_is_lower():
    risks = {"ours": torch.full((3, 10), 1.0), "other": torch.full((3, 10), 4.0)}
    assert torch.equal(advantage(risks), torch.full((3,), 0.75, dtype=torch.float64))
    swapped = dict(reversed(risks.items()))
    assert (advantage(swapped) < 0).all()


def test_it_finds_what_its_title_says_and_shows_it():
    found = run(contexts=300, repetitions=3, seed=7)
    (verdict,) = found.verdicts.values()
    assert verdict.outcome == CONDITIONAL
    assert verdict.settings == {"s = 1": REPRODUCED, "s = 2": REPRODUCED, "s = 8": NOT_REPRODUCED}
    assert all(risk.shape == (3, 300) for risks in found.risks.values() for risk in risks.values())
    found.plot_advantage()
    shown = torch.tensor([float(x) for line in plt.gca().get_lines() for x in line.get_xdata()])
    for risks in found.risks.values():
        for value in advantage(risks):
            assert (shown - value).abs().min() < 1e-6
    plt.close()
    assert len(found.numbers().splitlines()) == 2 + len(SETTINGS)


def test_another_seed_is_another_result_and_the_same_seed_is_the_same():
    first, same, other = (run(50, 2, seed).risks["s = 1"]["ridge"] for seed in (0, 0, 2))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_what_does_not_fit_is_refused():
    with pytest.raises(Refused, match="contexts=1: allowed are whole numbers from 2 on"):
        run(contexts=1, repetitions=2, seed=0)
    with pytest.raises(Refused, match="repetitions=1: allowed are whole numbers from 2 to 1000"):
        run(contexts=2, repetitions=1, seed=0)
