"""The page on forking, done as it says in a copy of the checkout: from a copy to the scorecard."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from icl.site import build
from icl.site.chapters import toc, verdicts
from icl.site.scorecard import scorecard

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "book" / "fork.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
ACTIVATE, COPY, RUN, MAKE, TEST, AGAIN = COMMANDS
PIECES = re.findall(r"```\{code-block\} \w+\n:caption: (\S+)\n\n(.*?)```", PAGE, re.DOTALL)
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
EXPERIMENT = "icl/experiments/my_finding.py"
_, TASK, ESTIMATOR, CLAIM = (text for path, text in PIECES if path == EXPERIMENT)


def shell(folder, script):
    """Run commands of the page, with the folder's own package and the environment it expects."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", f"set -e\n{ACTIVATE}\n{script}"], cwd=folder, env=environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def notebook(said):
    """The executed notebook that `icl run` speaks of."""
    return Path(re.search(r"^notebook +(.+)$", said, re.MULTILINE)[1])


def assert_judged(said, rival):
    said = " ".join(said.lower().split())
    assert re.search(rf"f1: .*{rival}\..*reproduced under conditions", said)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what a fork touches or runs."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("_config.yml", "_toc.yml", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "book", folder / "book")
    left = shutil.ignore_patterns("__pycache__", "trained")
    shutil.copytree(ROOT / "icl", folder / "icl", ignore=left)
    (folder / "icl" / "trained").symlink_to(ROOT / "icl" / "trained")
    (folder / "tests").mkdir()
    for name in ("conftest.py", "test_design.py"):
        shutil.copy(ROOT / "tests" / name, folder / "tests")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


@pytest.fixture(scope="module")
def fork(checkout):
    """The checkout with everything on the page written into it, and the copy's first verdict."""
    assert_judged(shell(checkout, COPY), "tuned ridge")
    path = checkout / EXPERIMENT
    _, mark, below = path.read_text().partition("@dataclass(frozen=True)\nclass Result")
    assert mark
    above = [text for name, text in PIECES if name == EXPERIMENT]
    path.write_text("\n\n".join([*above, mark + below]))
    for name, text in PIECES:
        if name != EXPERIMENT:
            with (checkout / name).open("a") as file:
                file.write(text)
    return checkout


def test_a_task_an_estimator_and_a_claim_take_fewer_than_20_lines_each():
    for part in (TASK, ESTIMATOR, CLAIM):
        assert 5 < len([line for line in part.splitlines() if line.strip()]) < 20


def test_the_fork_passes_its_test_and_the_rules_of_structure_and_style(fork):
    said = shell(fork, TEST)
    assert re.search(r"\d+ passed", said)
    assert "skipped" not in said
    mine = f"{EXPERIMENT} tests/test_my_finding.py book/my-finding.ipynb"
    shell(fork, f"ruff check --no-cache {mine}\nruff format --no-cache --check {mine}")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("reduction(ours, other)", "reduction(other, ours)"),
        ("size == size.amax", "size == size.amin"),
        ("reshape(batch, self.d)", "reshape(batch, 2, -1).swapaxes(1, 2).reshape(batch, self.d)"),
    ],
)
def test_its_test_fails_where_the_experiment_is_wrong(fork, right, wrong):
    path = fork / EXPERIMENT
    before = path.read_text()
    assert before.count(right) == 1
    try:
        path.write_text(before.replace(right, wrong))
        with pytest.raises(AssertionError, match=r"1 failed|2 failed"):
            shell(fork, "pytest -p no:cacheprovider tests/test_my_finding.py")
    finally:
        path.write_text(before)


def test_its_claim_stands_on_the_scorecard(fork, tmp_path):
    """In a site of this chapter alone: it would take minutes to execute the others."""
    said = shell(fork, RUN)
    assert_judged(said, "tuned lasso")
    assert toc(fork) == [*toc(ROOT), "my-finding"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{MAKE.split()[1]}: .*\n\t@\$\(BIN\)/icl build$", makefile, re.MULTILINE)

    stage, done = tmp_path / "stage", notebook(said)
    shutil.copytree(fork / "book" / "_static", stage / "book" / "_static")
    shutil.copy(fork / "_config.yml", stage)
    shutil.copy(fork / "book" / "references.bib", stage / "book")
    shutil.copy(done, stage / "book" / "my-finding.ipynb")
    found = [("my-finding", verdict) for verdict in verdicts(done)]
    (stage / "book" / "intro.md").write_text(
        f"# Intro\n\n{scorecard(found)}\n\n```{{bibliography}}\n```\n"
    )
    (added,) = (text for name, text in PIECES if name == "_toc.yml")
    (stage / "_toc.yml").write_text(f"format: jb-book\nroot: book/intro\nparts:\n{added}")
    build._jupyter_book(stage, tmp_path / "site")
    front = (tmp_path / "site" / "_build" / "html" / "book" / "intro.html").read_text()
    (row,) = re.findall(r"<tr[^>]*><td>(?:(?!</tr>).)*</tr>", front, re.DOTALL)
    text = " ".join(re.sub("<[^>]+>", " ", row).split())
    assert 'href="my-finding.html"' in row
    assert re.match(r"F1\b.* lower risk than tuned lasso\. reproduced under conditions", text)
    assert "(n = 16)" in text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_chapter_of_the_book_is_copied_and_runs(fork):
    assert notebook(shell(fork, AGAIN)).exists()


@pytest.mark.parametrize("program", PROGRAMS, ids=["a baseline", "a model of any attention"])
def test_code_of_the_page_runs_as_written(program, capsys):
    exec(compile(program, "fork.md", "exec"), {})
    assert capsys.readouterr().out
