"""Chapters as files, as programs, and as the documents say to use them."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from icl.errors import Failed, Refused
from icl.experiments import SHARED, experiments
from icl.site import build, chapters, digests
from icl.site.chapters import Chapter, execute

ROOT = Path(__file__).parent.parent
CHAPTERS = chapters.chapters(ROOT)
PARAMETERS = nbformat.v4.new_code_cell("x: int = 3  # a number", metadata={"tags": ["parameters"]})


def code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS)
def test_a_chapter_is_thin_stripped_and_parameterised(chapter):
    for cell in code_cells(chapter.path):
        assert not cell.outputs
        assert cell.execution_count is None
        assert len(cell.source.splitlines()) <= 15
        made = ast.walk(ast.parse(cell.source))
        assert not [node for node in made if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    for parameter in chapter.parameters():
        assert parameter.default is not None
        assert len(parameter.help) > 10, f"{parameter.name} needs a comment"
        assert type(parameter.default).__name__ == {
            "integer": "int", "float": "float", "boolean": "bool", "text": "str"
        }[parameter.kind.name]  # fmt: skip


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS)
def test_every_figure_has_alt_text_caption_and_name(chapter):
    for cell in code_cells(chapter.path):
        if re.search(r"^found\.plot", cell.source, re.MULTILINE):
            about = cell.metadata["mystnb"]
            assert len(about["image"]["alt"]) > 30
            assert len(about["figure"]["caption"]) > 30
            assert about["figure"]["name"].startswith("fig-")


def made(path, *sources):
    cells = [PARAMETERS, *map(nbformat.v4.new_code_cell, sources)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "x", "language": "python"}
    nbformat.write(notebook, path)
    return Chapter(path)


def test_execution_passes_parameters_and_records_what_it_ran(tmp_path):
    chapter = made(tmp_path / "c.ipynb", "print(x * 2)")
    execute(chapter, {"x": 21}, tmp_path / "out" / "c.ipynb")
    done = nbformat.read(tmp_path / "out" / "c.ipynb", as_version=4)
    assert done.cells[-1].outputs[0].text == "42\n"
    assert done.metadata["icl"]["parameters"] == {"x": 21}
    assert chapter.digest({"x": 21}) == done.metadata["icl"]["digest"] != chapter.digest({"x": 3})


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package whose models are empty files, of which digests are taken."""
    copy = tmp_path / "icl"
    source = ROOT / "icl"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "trained"))
    (copy / "trained").mkdir()
    for model in (source / "trained").glob("*.safetensors"):
        (copy / "trained" / model.name).touch()
    monkeypatch.setattr(digests, "PACKAGE", copy)
    return copy


OWN = ("contexts.py", "experiments/__init__.py", "experiments/models.py",
       "experiments/comparison.py", "experiments/preprocessing.py",
       "trained/preprocessed-2.safetensors")  # fmt: skip
OTHERS = ("cli.py", "site/pages.py", "site/chapters.py", "experiments/pruning.py",
          "trained/workhorse-5.safetensors")  # fmt: skip


@pytest.mark.parametrize(
    ("source", "seen", "ignored"),
    [
        ("from icl.experiments import preprocessing", OWN, OTHERS),
        ("import icl.experiments.preprocessing as p", OWN, OTHERS),
        ("from icl.experiments.preprocessing import run", OWN, OTHERS),
        ("from icl.experiments import preprocessing, pruning", (*OWN, *OTHERS[-2:]), OTHERS[:3]),
        ("x", (*OWN, *OTHERS), ()),
        ("%matplotlib inline", (*OWN, *OTHERS), ()),
        ("from icl.experiments import plans", (*OWN, *OTHERS), ()),
        ("import icl\nfrom icl.experiments import preprocessing", (*OWN, *OTHERS), ()),
    ],
)
def test_a_chapter_s_digest_sees_what_it_depends_on(tmp_path, package, source, seen, ignored):
    chapter = made(tmp_path / "c.ipynb", source)
    digest = chapter.digest({})
    for name in (*seen, *ignored):
        file = package / name
        before = file.read_bytes()
        file.write_bytes(before + b"#")
        assert (chapter.digest({}) != digest) == (name in seen), name
        file.write_bytes(before)
    assert chapter.digest({}) == digest
    assert chapter.digest({"x": 1}) != digest
    made(chapter.path, source, "y = 2")
    assert chapter.digest({}) != digest


def test_a_chapter_s_digest_sees_the_model_that_a_fine_tuning_starts_from(package, monkeypatch):
    from icl.experiments import pruning

    chapter = CHAPTERS["pruning"]
    fine_tuned = {name: plan for name, plan in pruning.PLANS.items() if plan.config.start}
    monkeypatch.setattr(pruning, "PLANS", fine_tuned)
    digest = chapter.digest({})
    (package / "trained" / "workhorse-5.safetensors").write_text("another")
    assert "workhorse-5" not in fine_tuned
    assert chapter.digest({}) != digest


def test_a_shipped_chapter_depends_on_its_own_experiment_only():
    for name in experiments():
        files = digests.dependencies(CHAPTERS[name].path)
        wing = {path.stem for path in files if path.parent.name == "experiments"}
        assert wing == {"__init__", *SHARED, name.replace("-", "_")}


def test_the_table_of_contents_is_read_whole_and_in_order(tmp_path):
    (tmp_path / "_toc.yml").write_text(
        """
format: jb-book
root: book/intro
parts:
  - caption: "file: book/not-a-page"
    chapters:
      - file: book/one.ipynb
        sections:
          - file: book/one_and-a-half
            sections:
              - {file: book/deeper.md, title: Deeper}
          - url: https://example.org
      # - file: book/left-out
  - caption: Two
    numbered: true
    chapters: [{file: book/two}]
"""
    )
    pages = ["intro", "one", "one_and-a-half", "deeper", "two"]
    assert chapters.toc(tmp_path) == pages


@pytest.mark.parametrize("text", ["format: jb-book\nchapters: []", "a: [", "root: x\npart: y"])
def test_a_malformed_table_of_contents_is_refused_in_one_line(tmp_path, text):
    (tmp_path / "_toc.yml").write_text(text)
    with pytest.raises(Refused, match=r"^_toc.yml: [^\n]+$"):
        chapters.toc(tmp_path)


def test_a_value_a_chapter_refuses_is_the_user_s_mistake_not_a_failure(tmp_path):
    source = "from icl.errors import require\nrequire(x > 0, f'x={x}: must be above 0')"
    with pytest.raises(Refused, match=r"^x=-1: must be above 0$"):
        execute(made(tmp_path / "c.ipynb", source), {"x": -1}, tmp_path / "out.ipynb")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("1 / 0", "c, cell 2: ZeroDivisionError: division by zero"),
        ("import os\nos._exit(1)", "c: DeadKernelError"),
        ("import time\ntime.sleep(60)", "c: .*[Tt]ime"),
    ],
)
def test_a_chapter_that_fails_leaves_no_result(tmp_path, monkeypatch, source, words):
    monkeypatch.setattr(chapters, "CELL_TIMEOUT", 4)
    output = tmp_path / "out" / "c.ipynb"
    with pytest.raises(Failed, match=words):
        execute(made(tmp_path / "c.ipynb", source), {}, output)
    assert not output.exists()


@pytest.fixture
def small_book(tmp_path):
    """A checkout of a book of two pages."""
    for name in ("_config.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "book" / "_static", tmp_path / "book" / "_static")
    shutil.copy(ROOT / "book" / "references.bib", tmp_path / "book")
    toc = "format: jb-book\nroot: book/intro\nchapters:\n  - file: book/one\n"
    (tmp_path / "_toc.yml").write_text(toc)
    (tmp_path / "book" / "intro.md").write_text("# Intro\n\nSee [one](one.ipynb).\n")
    made(tmp_path / "book" / "one.ipynb", "print('first result')")
    add_title(tmp_path / "book" / "one.ipynb")
    return tmp_path


def add_title(path):
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_markdown_cell("# One"))
    nbformat.write(notebook, path)


def test_a_build_is_incremental_and_a_failed_one_leaves_the_last_site(small_book, monkeypatch):
    monkeypatch.setenv("ICL_REPOSITORY", "https://github.com/someone/something")
    said = []
    index = build.build(small_book, said.append)
    page = index.parent / "book" / "one.html"
    assert "first result" in page.read_text()
    link = r"mybinder.org/v2/gh/someone/something/main\?urlpath=[a-z/]*tree/book/one.ipynb"
    assert re.search(link, page.read_text())
    edit = "https://github.com/someone/something/edit/main/book/one.ipynb"
    assert edit in page.read_text()
    assert not (index.parent / "sitemap.xml").exists(), "a map needs the site's address"
    assert said[-1].startswith("building")

    said.clear()
    build.build(small_book, said.append)
    assert said == ["nothing changed"]

    def broken(text, words):
        with pytest.raises(Failed, match=words):
            build.build(small_book, said.append)
        assert "first result" in page.read_text(), text

    (small_book / "book" / "intro.md").write_text("# Intro\n\nSee [](nowhere.md).\n")
    broken("a dead link is a warning, and a warning an error", "nowhere")
    made(small_book / "book" / "one.ipynb", "1 / 0")
    broken("a chapter that raises", "one, cell 2: ZeroDivisionError")
    made(small_book / "book" / "two.ipynb", "1")
    with pytest.raises(Refused, match=r"book/two.ipynb is not in _toc.yml"):
        build.build(small_book, said.append)
    assert "first result" in page.read_text()


def fork_lines():
    """What the book says to type for a fork, up to running it."""
    text = (ROOT / "book" / "rerun.md").read_text(encoding="utf-8")
    return re.search(r"```bash\n(cp .*?)icl run", text, re.DOTALL)[1]


@pytest.mark.parametrize("name", experiments())
def test_a_fork_of_any_chapter_has_labels_of_its_own_and_refers_to_others_as_before(tmp_path, name):
    (tmp_path / "book").mkdir()
    shutil.copy(CHAPTERS[name].path, tmp_path / "book" / "setup.ipynb")
    subprocess.run(["bash", "-ec", fork_lines()], cwd=tmp_path, check=True)
    before, after = (
        (tmp_path / "book" / f"{stem}.ipynb").read_text() for stem in ("setup", "my-finding")
    )

    def labels(text):
        found = re.findall(r'\$\$ \((eq-[a-z-]+)\)|"name": "(fig-[a-z-]+)"', text)
        return [equation or figure for equation, figure in found]

    used = [set(re.findall(r"(?:eq|numref)}`([a-z-]+)`", text)) for text in (before, after)]
    own = set(labels(before))
    assert labels(after) == [f"{label}-again" for label in labels(before)]
    assert used[1] == {f"{label}-again" if label in own else label for label in used[0]}
    assert [path.suffix for path in (tmp_path / "book").iterdir()] == [".ipynb"] * 2


def test_a_fork_made_as_the_book_says_builds_beside_its_original(small_book):
    (small_book / "book" / "one.ipynb").unlink()
    linked = ("setup", "reproducibility", "appendix")  # each has a link to the next
    for page in linked:
        (path,) = (ROOT / "book").glob(f"{page}.*")
        shutil.copy(path, small_book / "book")
    subprocess.run(["bash", "-ec", fork_lines()], cwd=small_book, check=True)
    pages_of = "format: jb-book\nroot: book/intro\nchapters:\n"
    listed = "".join(f"  - file: book/{name}\n" for name in ("my-finding", *linked))
    (small_book / "_toc.yml").write_text(pages_of + listed)
    intro = "# Intro\n\n```{bibliography}\n```\n"
    (small_book / "book" / "intro.md").write_text(intro)
    index = build.build(small_book, lambda _: None)
    assert (index.parent / "book" / "my-finding.html").exists()


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("git@github.com:someone/book.git", "https://github.com/someone/book"),
        ("https://gitlab.com/someone/book", "https://gitlab.com/someone/book"),
        ("https://host.example/someone/book", None),
        ("/somewhere/on/disk", None),
        (None, None),
    ],
)
def test_the_repository_address_is_never_made_up(tmp_path, monkeypatch, remote, address):
    monkeypatch.delenv("ICL_REPOSITORY", raising=False)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    if remote:
        subprocess.run(["git", "-C", tmp_path, "remote", "add", "origin", remote], check=True)
    assert build.repository(tmp_path) == address


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A copy of the checkout's book, with the environment where the documents expect it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "book", folder / "book")
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def blocks(language):
    text = (ROOT / "book" / "rerun.md").read_text(encoding="utf-8")
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found
    return [pytest.param(block, id=block.splitlines()[-1][:40]) for block in found]


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_of_the_book_run_as_written(scratch, block):
    script = f"set -e\nsource .venv/bin/activate\n{block}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=scratch, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if "icl run" in block:
        notebook = Path(re.search(r"^notebook +(.+)$", done.stdout, re.MULTILINE)[1])
        assert notebook.is_relative_to(scratch)
        assert notebook.exists()


@pytest.mark.parametrize("block", blocks("python"))
def test_code_of_the_book_runs_as_written(block, capsys):
    exec(compile(block, "rerun.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_readme_s_commands_are_the_makefile_s_and_its_tree_is_the_checkout_s():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in re.findall(r"^make (\w+)", readme, re.MULTILINE):
        assert command in targets
    tree = re.search(r"```text\n(.*?)```", readme, re.DOTALL)[1]
    named = re.findall(r"^( *)([\w./-]+)  ", tree, re.MULTILINE)
    folders, paths = {}, []
    for indent, name in named:  # a deeper line is a file of the last folder above it
        depth = len(indent) // 2
        paths.append(folders.get(depth - 1, Path()) / name)
        folders[depth] = paths[-1]
    for path in paths:
        assert (ROOT / path).exists(), f"the README's tree names {path}"
    experiments = {f"icl/experiments/{name.replace('-', '_')}.py" for name in CHAPTERS}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "icl").rglob("[a-z]*.py")}
    assert modules - experiments <= set(map(str, paths))


def test_conda_pip_and_pyproject_agree():
    import tomllib

    from packaging.requirements import Requirement

    lock = dict(
        line.split("==")
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line
    )
    lock = {name.lower().replace("_", "-"): version for name, version in lock.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["test"]
    for requirement in map(Requirement, wanted):
        version = lock[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), requirement
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pins = dict(entry.split("=") for entry in conda if isinstance(entry, str) and "=" in entry)
    assert pins["pytorch-cpu"] == lock["torch"]
    assert pins["numpy"] == lock["numpy"]
    assert project["project"]["requires-python"] == f">={pins['python']}"
    assert {"pip": ["-r requirements.lock", "-e ."]} in conda
    assert not re.search(r"://|--index|--find", (ROOT / "requirements.lock").read_text())
