"""Chapters as files, as programs, and as the documents say to use them."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from icl.errors import Failed, Refused
from icl.experiments import SHARED, experiments, plans
from icl.site import build, chapters, digests, downloads
from icl.site.chapters import Chapter, execute

ROOT = Path(__file__).parent.parent
CHAPTERS = chapters.chapters(ROOT)
EVERY = pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS)
PARAMETERS = nbformat.v4.new_code_cell("x: int = 3  # a number", metadata={"tags": ["parameters"]})


def code_cells(path):
    cells = nbformat.read(path, as_version=4).cells
    return [cell for cell in cells if cell.cell_type == "code"]


@EVERY
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


def tags(cell):
    return cell.metadata.get("tags", [])


def prompt(cell):
    """What stands on a folded part of a cell, open or not."""
    about = cell.metadata.get("mystnb", {})
    assert about.get("code_prompt_show") == about.get("code_prompt_hide")
    return about.get("code_prompt_show")


@EVERY
def test_a_chapter_opens_with_its_title_its_finding_and_a_figure(chapter):
    title, parameters, run, figure, question = nbformat.read(chapter.path, as_version=4).cells[:5]
    assert re.fullmatch(r"# .+", title.source)
    assert (tags(parameters), prompt(parameters)) == (["parameters", "hide-input"], "Parameters")
    assert (tags(run), prompt(run)) == (["hide-input"], "Set-up")
    assert run.source.endswith("found.finding")
    assert figure.source.startswith("found.plot")
    assert question.source.startswith("## The question\n")


@EVERY
def test_after_the_set_up_a_page_shows_results_and_no_code(chapter):
    _, _, *others = code_cells(chapter.path)
    for cell in others:
        verdict = re.fullmatch(r'found\.verdicts\["(\w+)"\]', cell.source)
        folded = "hide-output" in tags(cell)
        assert tags(cell) == ["remove-input"] + ["hide-output"] * folded
        assert bool(prompt(cell)) == folded, "what is folded has a name, and nothing else has one"
        assert not verdict or prompt(cell) == f"{verdict[1]}, setting by setting"


@EVERY
def test_every_figure_has_alt_text_caption_and_name_and_stands_open(chapter):
    for cell in code_cells(chapter.path):
        if re.search(r"^found\.plot", cell.source, re.MULTILINE):
            about = cell.metadata["mystnb"]
            assert len(about["image"]["alt"]) > 30
            assert len(about["figure"]["caption"]) > 30
            assert about["figure"]["name"].startswith("fig-")
            assert tags(cell) == ["remove-input"]


@EVERY
def test_what_is_folded_in_a_text_has_a_name_and_an_end(chapter):
    for cell in nbformat.read(chapter.path, as_version=4).cells:
        fences = re.findall(r"^:::.*$", cell.source, re.MULTILINE)
        assert all(re.fullmatch(r":::\{dropdown\} .+", fence) for fence in fences[::2])
        assert all(fence == ":::" for fence in fences[1::2])
        assert len(fences) % 2 == 0


def exercises(chapter):
    last = nbformat.read(chapter.path, as_version=4).cells[-1].source
    assert last.startswith("## Exercises\n")
    last, _, _ = last.partition("\n:::{dropdown}")  # what came out
    return re.split(r"^\d\. ", last, flags=re.MULTILINE)[1:]


@EVERY
def test_a_chapter_ends_with_exercises_on_parameters_and_names_that_exist(chapter):
    found = exercises(chapter)
    assert 1 <= len(found) <= 3
    for exercise in found:
        for name in re.findall(r"`icl run ([\w-]+)", exercise):
            assert name in CHAPTERS
        for experiment in re.findall(r"`icl train --experiment ([\w-]+)", exercise):
            assert experiments()[experiment].PLANS
        for name in re.findall(r"`icl train (\w[\w-]*)", exercise):
            assert name in plans()
        options = re.sub(r"`icl train [^`]*`", "", exercise)
        for name, value in re.findall(r"--(\w+) ([\w.]+)", options):
            known = {p.name: p.kind for p in chapter.parameters()}
            assert name in known, f"--{name}: {chapter.name} has {', '.join(known)}"
            known[name].convert(value, None, None)
        sources = "".join(
            (ROOT / path).read_text(encoding="utf-8")
            for path in re.findall(r"`(icl/[\w/]+\.py)`", exercise)
        )
        for name in re.findall(r"`([A-Za-z_]\w*)`", exercise) if sources else ():
            assert re.search(rf"\b{name}\b", sources), f"{name} is in none of the files named"


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
    for model in (source / "trained").glob("*.safetensors.xz"):
        (copy / "trained" / model.name).touch()
    monkeypatch.setattr(digests, "PACKAGE", copy)
    return copy


OWN = ("contexts.py", "experiments/__init__.py", "experiments/models.py",
       "experiments/comparison.py", "experiments/preprocessing.py",
       "trained/preprocessed-2.safetensors.xz")  # fmt: skip
OTHERS = ("cli.py", "runs.py", "site/pages.py", "site/chapters.py", "experiments/pruning.py",
          "trained/workhorse-5.safetensors.xz")  # fmt: skip


@pytest.mark.parametrize(
    ("source", "seen", "ignored"),
    [
        ("from icl.experiments import preprocessing", OWN, OTHERS),
        ("import icl.experiments.preprocessing as p", OWN, OTHERS),
        ("from icl.experiments.preprocessing import run", OWN, OTHERS),
        ("from icl.experiments import preprocessing, pruning", (*OWN, *OTHERS[-2:]), OTHERS[:4]),
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
    (package / "trained" / "workhorse-5.safetensors.xz").write_text("another")
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


def test_only_values_that_are_not_the_defaults_are_injected(tmp_path):
    """So that whoever edits the parameters of a published notebook runs it with what was typed."""
    chapter = made(tmp_path / "c.ipynb", "print(x)")
    for given, count in (({}, 0), ({"x": 3}, 0), ({"x": 4}, 1)):
        execute(chapter, given, tmp_path / "out.ipynb")
        cells = code_cells(tmp_path / "out.ipynb")
        tags = [tag for cell in cells for tag in cell.metadata.get("tags", [])]
        assert tags.count("injected-parameters") == count
        assert cells[-1].outputs[0].text == f"{given.get('x', 3)}\n"
    with pytest.raises(Refused, match="parameter='y': allowed are x"):
        execute(chapter, {"y": 1}, tmp_path / "out.ipynb")


@pytest.mark.parametrize(
    ("line", "kind"),
    [("x: float = 1  # a", "float"), ("x = 2  # a", "integer"), ("x = 'a'", "text")],
)
def test_a_parameter_without_a_type_has_that_of_its_default(tmp_path, line, kind):
    path = made(tmp_path / "c.ipynb").path
    path.write_text(path.read_text().replace("x: int = 3  # a number", line))
    assert [p.kind.name for p in Chapter(path).parameters()] == [kind]


@pytest.mark.parametrize("line", ["x = 2 ** 3", "x = [1, 2]", "x = None", "x = other"])
def test_a_parameter_that_no_option_can_be_is_refused(tmp_path, line):
    path = made(tmp_path / "c.ipynb").path
    path.write_text(path.read_text().replace("x: int = 3  # a number", line))
    with pytest.raises(Refused, match=r"^c.ipynb: x = .*: allowed is a number, text, or bool$"):
        Chapter(path).parameters()


def test_chapters_are_told_as_they_start_and_failures_at_the_end(tmp_path):
    sources = {"a": "x", "b": "1 / 0", "c": "from icl.errors import require\nrequire(0, 'x: no')"}
    jobs = [
        chapters.Job(made(tmp_path / f"{name}.ipynb", source), tmp_path / "out" / f"{name}.ipynb")
        for name, source in sources.items()
    ]
    said = []
    ended = {job.title: error for job, error in chapters.executed(jobs, said.append)}
    assert said == [f"executing {name} ..." for name in sources]
    assert ended["a"] == ""
    assert ended["b"].startswith("b, cell 2: ZeroDivisionError")
    assert ended["c"] == "c: x: no"
    assert [path.name for path in (tmp_path / "out").glob("*.ipynb") if path.stem in sources] == [
        "a.ipynb"
    ]
    said.clear()
    with pytest.raises(Failed, match=r"(?s)ZeroDivisionError.*c: x: no"):
        chapters.execute_all(jobs, said.append)
    assert said == ["executing b ...", "executing c ..."], "what is done is not executed again"


def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_fails_its_chapter_and_those_that_wait(tmp_path, monkeypatch):
    """As where memory runs out. Every chapter is named, in a line of its own."""
    jobs = [chapters.Job(made(tmp_path / f"{name}.ipynb"), tmp_path / name) for name in "ab"]
    monkeypatch.setattr(chapters, "execute", killed)
    monkeypatch.setattr(chapters, "free_memory", lambda: 0)  # one at a time
    ended = {job.title: error for job, error in chapters.executed(jobs, str)}
    assert ended["a"].startswith("a: A process in the process pool was terminated")
    assert ended["b"] == "b: not executed"


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    path = tmp_path / "c.ipynb"
    path.write_text("<<<<<<< HEAD\n{}")
    for ask in (lambda chapter: chapter.title, Chapter.parameters):
        with pytest.raises(Refused, match=r"^c.ipynb: not a notebook \("):
            ask(Chapter(path))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("html:\n", "html: [\n", "^_config.yml: while parsing"),
        ("html:\n", "hmtl:\n", "^_config.yml: html is missing"),
        ("sphinx:\n", "sphinx: 3\nother:\n", "^_config.yml: sphinx is missing, or has no"),
    ],
)
def test_what_is_wrong_with_the_settings_is_told_before_a_chapter_runs(small_book, old, new, words):
    file = small_book / "_config.yml"
    text = file.read_text()
    assert text.count(old) == 1
    file.write_text(text.replace(old, new))
    said = []
    with pytest.raises(Refused, match=words):
        build.build(small_book, said.append)
    file.unlink()
    with pytest.raises(Refused, match=r"^_config.yml: .*No such file"):
        build.build(small_book, said.append)
    assert said == []


def test_a_kernel_is_reached_through_files_of_its_own(tmp_path):
    """Of kernels that start at once, two could choose the same port."""
    source = "from ipykernel.connect import get_connection_info\nprint(get_connection_info())"
    chapter = made(tmp_path / "c.ipynb", source)
    execute(chapter, {}, tmp_path / "out.ipynb")
    (said,) = [
        json.loads(output.text)
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    assert said["transport"] == "ipc"
    folder = Path(said["ip"]).parent
    assert folder.is_absolute()
    assert not folder.exists(), "it is gone with the kernel"


@pytest.mark.parametrize(
    ("cores", "room", "count", "threads"),
    [(2, 64e9, 2, 1), (16, 64e9, 3, 5), (16, 4.5e9, 2, 8), (1, 64e9, 1, 1), (4, 1e9, 1, 4)],
)
def test_chapters_share_cores_as_far_as_memory_allows(
    tmp_path, monkeypatch, cores, room, count, threads
):
    def pool(processes, initializer, initargs):
        raise Failed(f"{processes} processes of {initargs[0]} threads")

    monkeypatch.setattr(chapters.os, "cpu_count", lambda: cores)
    monkeypatch.setattr(chapters, "free_memory", lambda: room)
    monkeypatch.setattr(chapters, "ProcessPoolExecutor", pool)
    made_all = [made(tmp_path / f"{name}.ipynb") for name in "abc"]
    jobs = [chapters.Job(chapter, tmp_path / "out" / chapter.path.name) for chapter in made_all]
    with pytest.raises(Failed, match=f"^{count} processes of {threads} threads$"):
        chapters.execute_all(jobs, print)


def test_a_value_a_chapter_refuses_is_the_user_s_mistake_not_a_failure(tmp_path):
    source = "from icl.errors import require\nrequire(x > 0, f'x={x}: must be above 0')"
    with pytest.raises(Refused, match=r"^x=-1: must be above 0$"):
        execute(made(tmp_path / "c.ipynb", source), {"x": -1}, tmp_path / "out.ipynb")


@pytest.mark.parametrize(
    ("source", "words", "timeout"),
    [
        ("1 / 0", "c, cell 2: ZeroDivisionError: division by zero", 600),
        ("import os\nos._exit(1)", "c: DeadKernelError", 600),
        ("import time\ntime.sleep(60)", "c: .*[Tt]ime", 4),
    ],
)
def test_a_chapter_that_fails_leaves_no_result(tmp_path, monkeypatch, source, words, timeout):
    monkeypatch.setattr(chapters, "CELL_TIMEOUT", timeout)
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
    download = index.parent / "_sources" / "book" / "one.ipynb"
    assert "_sources/book/one.ipynb" in page.read_text(), "the button's link"
    assert "pip install --quiet git+https://github.com/someone/something" in download.read_text()
    assert "first result" in download.read_text(), "its code"
    assert all(not cell.outputs for cell in code_cells(download))

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


@pytest.mark.parametrize("address", [None, "https://github.com/someone/something"])
def test_a_download_is_the_source_and_says_how_to_install_the_library(tmp_path, address):
    source = made(tmp_path / "one.ipynb", "print(x)").path
    notebook = nbformat.read(source, as_version=4)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="old")]
    nbformat.write(notebook, source)
    output = tmp_path / "site" / "one.ipynb"
    downloads.write(source, output, address)
    about, install, *cells = nbformat.read(output, as_version=4).cells
    assert (about.cell_type, install.cell_type) == ("markdown", "code")
    assert f"pip install --quiet {f'git+{address}' if address else '-e .'}" in install.source
    assert ("checkout" in about.source) == (address is None)
    assert [cell.source for cell in cells] == [cell.source for cell in notebook.cells]
    assert not any(cell.outputs for cell in cells)
    assert Chapter(output).title == "one", "no comment in code is a title"


def test_a_download_of_any_format_is_valid(tmp_path):
    source = made(tmp_path / "one.ipynb", "print(x)").path
    notebook = nbformat.read(source, as_version=4)
    notebook.nbformat_minor = 4
    for cell in notebook.cells:
        del cell["id"]
    nbformat.write(notebook, source)
    downloads.write(source, tmp_path / "out.ipynb", None)
    nbformat.validate(nbformat.read(tmp_path / "out.ipynb", as_version=4))


def test_what_a_reader_types_into_a_download_is_what_runs(tmp_path):
    file = tmp_path / "setup.ipynb"
    downloads.write(CHAPTERS["setup"].path, file, None)
    typed = file.read_text(encoding="utf-8")
    assert "contexts: int = 64" in typed
    file.write_text(typed.replace("contexts: int = 64", "contexts: int = 5"), encoding="utf-8")
    notebook = nbformat.read(file, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("contexts"))
    nbformat.write(notebook, file)
    execute(Chapter(file), {}, tmp_path / "out.ipynb")
    (shown,) = code_cells(tmp_path / "out.ipynb")[-1].outputs
    assert shown.data["text/plain"] == "5"


def copy_lines():
    """What the book says to type for a copy of a chapter, up to running it."""
    text = (ROOT / "book" / "fork.md").read_text(encoding="utf-8")
    return re.search(r"```bash\n(cp .*?)icl run", text, re.DOTALL)[1]


@pytest.mark.parametrize("name", experiments())
def test_a_copy_of_any_chapter_has_labels_of_its_own_and_refers_to_others_as_before(tmp_path, name):
    (tmp_path / "book").mkdir()
    shutil.copy(CHAPTERS[name].path, tmp_path / "book" / "setup.ipynb")
    subprocess.run(["bash", "-ec", copy_lines()], cwd=tmp_path, check=True)
    before, after = (
        (tmp_path / "book" / f"{stem}.ipynb").read_text() for stem in ("setup", "setup-again")
    )

    def labels(text):
        found = re.findall(r'\$\$ \((eq-[a-z-]+)\)|"name": "(fig-[a-z-]+)"', text)
        return [equation or figure for equation, figure in found]

    used = [set(re.findall(r"(?:eq|numref)}`([a-z-]+)`", text)) for text in (before, after)]
    own = set(labels(before))
    assert labels(after) == [f"{label}-again" for label in labels(before)]
    assert used[1] == {f"{label}-again" if label in own else label for label in used[0]}
    assert [path.suffix for path in (tmp_path / "book").iterdir()] == [".ipynb"] * 2


def test_a_copy_made_as_the_book_says_builds_beside_its_original(small_book):
    (small_book / "book" / "one.ipynb").unlink()
    linked = ("setup", "reproducibility", "appendix")  # each has a link to the next
    for page in linked:
        (path,) = (ROOT / "book").glob(f"{page}.*")
        shutil.copy(path, small_book / "book")
    subprocess.run(["bash", "-ec", copy_lines()], cwd=small_book, check=True)
    pages_of = "format: jb-book\nroot: book/intro\nchapters:\n"
    listed = "".join(f"  - file: book/{name}\n" for name in ("setup-again", *linked))
    (small_book / "_toc.yml").write_text(pages_of + listed)
    intro = "# Intro\n\n```{bibliography}\n```\n"
    (small_book / "book" / "intro.md").write_text(intro)
    index = build.build(small_book, lambda _: None)
    assert (index.parent / "book" / "setup-again.html").exists()


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
    if "icl run" in block and "--help" not in block:
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

    text = (ROOT / "requirements.lock").read_text()
    entries = re.findall(r"^(\S+)==(\S+)((?:.*\\\n)+.*)$", text, re.MULTILINE)
    assert len(entries) == text.count("==") - text.count("== '") > 100
    lock = {}
    for name, version, hashes in entries:
        assert hashes.count("--hash=sha256:") >= 1, name
        lock[name] = version
    makefile = (ROOT / "Makefile").read_text()
    lock["torch"] = re.search(r"^TORCH \?= torch==(\S+)$", makefile, re.MULTILINE)[1]
    assert "--require-hashes --no-deps -r requirements.lock" in makefile
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (known,) = project["tool"]["uv"]["dependency-metadata"]
    assert known["version"] == lock["torch"]
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["test"]
    wanted += known["requires-dist"]
    for requirement in map(Requirement, wanted):
        version = lock[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), requirement
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pins = dict(entry.split("=") for entry in conda if isinstance(entry, str) and "=" in entry)
    assert pins["pytorch-cpu"] == lock["torch"]
    assert pins["numpy"] == lock["numpy"]
    assert project["project"]["requires-python"].startswith(f">={pins['python']}.")
    assert {"pip": ["-r requirements.lock"]} in conda
    assert "pip install --no-deps" in (ROOT / "postBuild").read_text()
    pages = [(ROOT / "book" / f"{name}.md").read_text("utf-8") for name in ("rerun", "cluster")]
    for extra in project["project"]["optional-dependencies"]:
        assert any(f'pip install -e ".[{extra}]"' in page for page in pages)
    assert not re.search(r"://|--index|--find", text)
