"""What a reader runs: where it goes, what is compared with the published run, and what is said."""

import json
from pathlib import Path

import nbformat
import pytest

from icl import errors
from icl.claims import MIME, NOT_REPRODUCED, REPRODUCED, UNDECIDED
from icl.errors import Refused
from icl.site import differences, reruns
from icl.site.chapters import Chapter, chapters, execute
from icl.site.differences import Comparison

JUDGES = f"""
import json
from IPython.display import display
value = 0.9 if seed < 3 else 0.2
decision = "{REPRODUCED}" if seed < 3 else "{NOT_REPRODUCED}"
finding = {{"setting": "here", "part": "", "statistic": "share", "value": value,
           "low": value - 0.1, "high": value + 0.1, "threshold": 0.5, "decision": decision}}
verdict = {{"id": "A1", "statement": "It is so.", "outcome": decision, "headline": decision,
           "settings": {{"here": decision}}, "said": f"It is {{value}}", "findings": [finding]}}
display({{"{MIME}": json.dumps(verdict), "text/plain": "verdict"}}, raw=True)
"""
SHOWS = """
import matplotlib.pyplot as plt
plt.plot([contexts, 0])
plt.show()
"""
FINDS = """
from types import SimpleNamespace
from icl.tables import Text
found = SimpleNamespace(finding=Text(f"**It is {contexts}.** Indeed."))
"""


def write(path, *sources):
    """A chapter: a title, parameters, code."""
    cells = [nbformat.v4.new_markdown_cell(f"# The chapter {path.stem}")]
    cells += [nbformat.v4.new_code_cell(source) for source in sources]
    cells[1].metadata["tags"] = ["parameters"]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    path.parent.mkdir(exist_ok=True, parents=True)
    nbformat.write(notebook, path)
    return Chapter(path)


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A checkout of a book of two chapters, which is where commands are typed."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "book" / "judging.ipynb", "seed: int = 1  # a seed", JUDGES)
    finds = ("contexts: int = 9  # contexts", FINDS, "found.finding", SHOWS)
    write(tmp_path / "book" / "plain.ipynb", *finds)
    toc = "format: jb-book\nroot: book/judging\nchapters:\n  - file: book/plain\n"
    (tmp_path / "_toc.yml").write_text(toc)
    return tmp_path


def publish(book, name):
    execute(chapters(book)[name], {}, book / "_build" / "executed" / f"{name}.ipynb")


def test_a_run_is_compared_with_the_published_one_and_keeps_every_other(book, icl):
    status, out, err = icl("run", "judging")
    assert status == 0
    assert "no published run to compare with: `icl build` makes it" in " ".join(out.split())
    publish(book, "judging")
    status, out, err = icl("run", "judging", "--seed", 2)
    assert "; the published run took" in err
    assert "verdict    reproduced; as published" in out
    assert "1 of 1 estimates lie in the published intervals" in out
    assert "0 of 1 verdicts changed, 1 of 1 estimates" in out
    status, out, _ = icl("run", "book/judging.ipynb", "--seed", 3)
    text = " ".join(out.split())
    assert "verdict not reproduced; published: reproduced" in text
    assert "here It is 0.2 published It is 0.9" in text
    assert "changed here: not reproduced; published: reproduced" in text
    assert "outside here, share: 0.200 [0.100, 0.300]; published: 0.900 [0.800, 1.000]" in text
    assert "1 of 1 verdicts changed, 0 of 1 estimates lie" in text
    assert "(seed 1)" in text
    runs = book / "_build" / "runs" / "judging"
    assert {path.name for path in runs.iterdir()} == {"defaults", "seed-2", "seed-3"}
    write(book / "book" / "judging.ipynb", "seed: int = 1  # a seed", JUDGES, "1")
    assert "since then it, its models" in str(differences.published(chapters(book)["judging"]))


def test_a_chapter_that_judges_nothing_says_what_it_found_and_figures_are_of_this_run(book, icl):
    publish(book, "plain")
    status, out, _ = icl("run", "plain", "--contexts", 5, "--output", book / "mine")
    assert status == 0
    assert "here       It is 5. Indeed." in out
    assert "published  It is 9. Indeed." in out
    assert "no claim is judged here; compared with" in out
    folder = book / "mine" / "plain" / "contexts-5"
    assert f"notebook  {folder / 'plain.ipynb'}" in out
    figures = sorted(path.name for path in folder.iterdir())
    assert figures == ["figure-1.png", "plain.ipynb"]
    (folder / "figure-2.svg").write_text("of an older run")
    reruns.extract_figures(folder / "plain.ipynb")
    assert not (folder / "figure-2.svg").exists()


@pytest.mark.parametrize(("given", "taken"), [(None, "3000"), ("77", "77")])
def test_runs_that_share_a_machine_do_not_wait_busily(book, icl, monkeypatch, given, taken):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    if given:
        monkeypatch.setenv("GOMP_SPINCOUNT", given)
    asks = "import os\nprint(os.environ['GOMP_SPINCOUNT'])"
    write(book / "book" / "judging.ipynb", "seed: int = 1  # a seed", asks)
    assert icl("run", "judging", "--output", book / "here")[0] == 0
    (path,) = (book / "here").rglob("judging.ipynb")
    assert nbformat.read(path, as_version=4).cells[-1].outputs[0].text.strip() == taken


def test_all_chapters_run_and_failures_are_told_at_the_end(book, icl):
    write(book / "book" / "failing.ipynb", "contexts: int = 9  # contexts", "1 / (contexts - 5)")
    publish(book, "judging")
    status, out, err = icl("run", "all", "--contexts", 5)
    assert status == 1
    assert "without --contexts, so as they are there: judging" in err
    assert "judging: 0 of 1 verdicts changed, 1 of 1 estimates lie" in out
    assert "plain, contexts 5: no claim is judged here" in out
    told = err[err.index("icl: ") :]
    assert told.startswith("icl: 1 of 3 chapters failed\nfailing, cell 3: ZeroDivisionError")
    runs = book / "_build" / "runs"
    assert (runs / "judging" / "defaults" / "judging.ipynb").exists()
    assert (runs / "plain" / "contexts-5" / "figure-1.png").exists()
    write(book / "book" / "failing.ipynb", "contexts: int = 9  # contexts", "2")
    status, out, err = icl("run", "all", "--contexts", 5)
    assert status == 0
    executed = [line for line in err.splitlines() if line.startswith("executing")]
    assert executed == ["executing failing, contexts 5 ..."], "what has not changed is kept"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "judgin"], "did you mean judging?"),
        (["run", ""], "chapter=''"),
        (["run", "book/none.ipynb"], "no such notebook"),
        (["run", "book/judging"], "no such notebook"),
        (["run", "book/text.ipynb"], "not a notebook"),
        (["run", "book/nameless.ipynb"], "names no kernel"),
        (["run", "other/output.ipynb"], "a parameter named output"),
        (["run", "other/float.ipynb", "--b", "nan"], "b=nan: a finite number is needed"),
        (["run", "other/float.ipynb", "--b", "inf"], "b=inf: a finite number is needed"),
        (["run", "all", "--sed", "3"], "did you mean --seed?"),
        (["run", "all", "--seed", "x"], "'x' is not a valid integer"),
        (["run", "judging", "--output", ""], "the name of a folder is needed"),
        (["run", "all", "--output", " "], "the name of a folder is needed"),
        (["run", "judging", "--output", "_toc.yml"], "is a file; a folder is needed"),
        (["run", "judging", "--output", "_toc.yml/in"], "is a file; a folder is needed"),
        (["run", "judging", "--output", "/proc/here"], "cannot be written to"),
        (["train", "workhorse-3", "--output", ""], "must end in .safetensors.xz"),
        (["train", "workhorse-3", "--output", "/proc/m.safetensors.xz"], "cannot be written to"),
        (["train", "workhorse-3", "--output", "_toc.yml/m.safetensors.xz"], "is a file"),
        (["train", "workhorse-3", "--output", "x.safetensors.xz"], "is a folder; a file is needed"),
        (["train", "--experiment", "pruning", "--output", ""], "name of a folder is needed"),
        (["train", "--experiment", "pruning", "--output", "_toc.yml"], "is a file"),
    ],
)
def test_mistakes_are_one_line_before_any_work(book, icl, arguments, words):
    others = {
        "text.ipynb": "no JSON\nat all",
        "nameless.ipynb": json.dumps(
            {"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        ),
    }
    (book / "x.safetensors.xz").mkdir()
    write(book / "other" / "output.ipynb", "output: int = 1  # a number")
    write(book / "other" / "float.ipynb", "b: float = 1.0  # a number")
    file = arguments[1].removeprefix("book/")
    if file in others:
        (book / "book" / file).write_text(others[file])
    status, out, err = icl(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("icl: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (book / "_build").exists()


def test_folders_that_do_not_exist_yet_can_be_written_to(tmp_path):
    assert errors.writable(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()


PARAMETERS = "a: str = ''  # a text\nb: float = 1.0  # a number\nc: int = 2  # another"


def folder(chapter, **given):
    return reruns.plan(chapter, given, None).output.parent.name


def test_different_values_have_different_folders(tmp_path):
    chapter = write(tmp_path / "c.ipynb", PARAMETERS)
    assert folder(chapter) == folder(chapter, b=1.0, c=2) == "defaults"
    assert folder(chapter, c=7, b=0.5) == folder(chapter, b=0.5, c=7) == "b-0.5-c-7"
    long = "x" * 300
    values = [{"a": x} for x in ("x/y", "x y", "x_y", "../..", long, long + "y", "é")]
    names = [folder(chapter, **given) for given in values]
    assert len(set(names)) == len(names)
    assert all(len(name) < 100 and "/" not in name and name != ".." for name in names)


def test_no_run_overwrites_one_of_other_defaults_or_of_another_notebook(book):
    chapter = chapters(book)["plain"]
    job = reruns.plan(chapter, {}, None)
    execute(chapter, {}, job.output)
    assert reruns.plan(chapter, {}, None) == job, "the same values replace themselves"
    write(chapter.path, "contexts: int = 10  # contexts", FINDS)
    with pytest.raises(Refused, match=r"is a run of .*plain.ipynb with contexts 9"):
        reruns.plan(chapter, {}, None)
    elsewhere = write(book / "other" / "plain.ipynb", "contexts: int = 9  # contexts", FINDS)
    assert reruns.plan(elsewhere, {}, None).output.is_relative_to(book / "other" / "runs")
    with pytest.raises(Refused, match="is a run of"):
        reruns.plan(elsewhere, {}, book / "_build" / "runs")


def estimate(value, low, high, setting="s", decision=REPRODUCED):
    about = {"setting": setting, "part": "", "statistic": "share", "threshold": 0.5}
    return about | {"value": value, "low": low, "high": high, "decision": decision}


def verdict(*findings, outcome=REPRODUCED, settings=None):
    about = {"id": "A1", "statement": "It is so.", "outcome": outcome, "headline": outcome}
    return about | {"settings": settings or {}, "said": "x", "findings": list(findings)}


NAN = float("nan")


@pytest.mark.parametrize(
    ("here", "there", "inside"),
    [
        ((0.5, 0.0, 1.0), (0.6, 0.4, 0.8), True),
        ((0.39, 0.0, 1.0), (0.6, 0.4, 0.8), False),
        ((0.81, 0.0, 1.0), (0.6, 0.4, 0.8), False),
        ((0.6 + 1e-9,) * 3, (0.6,) * 3, True),
        ((0.601,) * 3, (0.6,) * 3, False),
        ((NAN,) * 3, (NAN,) * 3, True),
        ((NAN,) * 3, (0.6, 0.4, 0.8), False),
        ((0.6, 0.4, 0.8), (NAN,) * 3, False),
    ],
)
def test_an_estimate_is_inside_if_the_published_interval_holds_its_value(here, there, inside):
    found = Comparison(verdict(estimate(*here)), verdict(estimate(*there)))
    assert found.outside == ([] if inside else found.pairs)
    assert ("outside" in "".join(found.lines())) == (not inside)


def test_only_settings_of_both_runs_are_compared():
    here = verdict(
        estimate(0.5, 0.4, 0.6, "new"), estimate(0.9, 0.8, 1.0, "old"),
        settings={"new": UNDECIDED, "old": REPRODUCED},
    )  # fmt: skip
    there = verdict(estimate(0.9, 0.8, 1.0, "old"), settings={"old": NOT_REPRODUCED})
    found = Comparison(here, there)
    assert len(found.pairs) == 1
    assert found.moved == ["old: reproduced; published: not reproduced"]
    assert found.changed, "though the outcome is the same"


def test_verdicts_without_estimates_and_new_ones_are_shown_as_they_are():
    bare = {key: value for key, value in verdict().items() if key not in ("findings", "said")}
    text = "\n".join(Comparison(bare, bare).lines())
    assert "reproduced; as published" in text
    assert "intervals" not in text
    assert "published" not in "\n".join(Comparison(verdict(), None).lines())
    new = Comparison(verdict(), {})
    assert not new.changed
    assert "not judged in the published run" in "\n".join(new.lines())


def test_long_lists_are_cut_and_lines_fit(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    places = [f"{n} heads with a rather long name, d = 8, k = 9" for n in range(12)]
    here, there = ([estimate(x, x - 0.1, x + 0.1, place) for place in places] for x in (0.2, 0.9))
    lines = list(Comparison(verdict(*here), verdict(*there)).lines())
    assert max(map(len, lines)) <= 80
    assert sum("outside" in line for line in lines) == differences.SHOWN + 1
    assert "and 7 more" in lines[-1]


def test_the_record_that_is_read_is_what_claims_write():
    """The keys that a comparison needs are those of `Verdict.to_dict`."""
    import torch

    from icl.claims import CHEN, Claim, Criterion

    claim = Claim("A1", CHEN, "It is so.", (Criterion("gap", lambda x: x, 0.5, "Why."),))
    written = [
        json.loads(claim.judge({"one": torch.tensor(x)})._repr_mimebundle_()[MIME])
        for x in ([1.0, 1.01], [0.0, 0.01])
    ]
    found = Comparison(*written)
    assert found.changed
    assert found.moved == ["one: reproduced; published: not reproduced"]
    assert len(found.outside) == len(found.pairs) == 1
    assert "gap: 1.005" in " ".join(found.lines())


def test_a_notebook_from_elsewhere_needs_no_checkout(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(differences, "root", lambda: (_ for _ in ()).throw(Refused("none")))
    chapter = reruns.find(str(write(Path("mine.ipynb"), "x: int = 1  # a number").path))
    assert differences.published(chapter) is None
    assert reruns.plan(chapter, {}, None).output == tmp_path / "runs/mine/defaults/mine.ipynb"
