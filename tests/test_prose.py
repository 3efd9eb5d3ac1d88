"""Numbers in a chapter's text come from its run."""

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from icl.errors import Failed
from icl.site.chapters import Chapter, chapters, execute, root
from icl.site.prose import EVAL, answer, ask
from icl.site.scorecard import QUOTED

CHAPTERS = chapters(root())
# Shares and multiples, which only a run can know. A number of weights or heads is a setting.
MEASURED = re.compile(
    r"\b(third|quarter|fifth|sixth|seventh|eighth|ninth|tenth|twelfth|twentieth|fiftieth|hundredth)s?"
    r"\b|\bper cent\b|\d ?%|\bhalf (of|as)\b|\btwice\b|\d+ times\b"
)


def chapter(folder, *texts):
    path = folder / "tiny.ipynb"
    parameters = new_code_cell("x: int = 3  # a number", metadata={"tags": ["parameters"]})
    cells = [parameters, *map(new_markdown_cell, texts), new_code_cell("y = x + 1")]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": kernel}), path)
    return Chapter(path)


def test_values_stand_where_the_text_asks_for_them_whatever_the_parameters(tmp_path):
    asking = chapter(
        tmp_path, "From {eval}`x`, not {term}`y`:", "{eval}`y` and {eval}`'%s' % (x,)`."
    )
    output = tmp_path / "out.ipynb"
    for parameters, found in (({}, "4 and 3."), ({"x": 7}, "8 and 7.")):
        execute(asking, parameters, output)
        notebook = nbformat.read(output, as_version=4)
        texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        assert texts == [f"From {parameters.get('x', 3)}, not {{term}}`y`:", found]
        assert notebook.cells[-1].source == "y = x + 1"
        assert notebook.metadata["papermill"]["input_path"] == str(asking.path)


def test_a_chapter_that_asks_for_nothing_gets_no_cell(tmp_path):
    execute(chapter(tmp_path, "No number."), {}, tmp_path / "out.ipynb")
    assert len(nbformat.read(tmp_path / "out.ipynb", as_version=4).cells) == 3


def test_what_cannot_be_computed_fails_by_the_name_of_the_expression(tmp_path):
    asking = chapter(tmp_path, "It is {eval}`x` and {eval}`z / 2`.")
    with pytest.raises(Failed, match=r"(?s)name 'z' is not defined.*str\(z / 2\)"):
        execute(asking, {}, tmp_path / "out.ipynb")


@pytest.mark.parametrize("chapter", CHAPTERS.values(), ids=CHAPTERS)
def test_what_to_believe_has_no_number_that_the_run_did_not_find(chapter):
    cells = nbformat.read(chapter.path, as_version=4).cells
    for cell in cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## What to believe"):
            typed = EVAL.sub("", cell.source)
            assert not MEASURED.search(typed), f"{chapter.name}: {MEASURED.search(typed)[0]}"


def test_the_page_that_ends_the_book_quotes_its_numbers():
    text = (root() / "book" / "under-which-conditions.md").read_text(encoding="utf-8")
    typed = QUOTED.sub("", text)
    assert len(QUOTED.findall(text)) > 15
    assert not MEASURED.search(typed), MEASURED.search(typed)[0]


def test_a_notebook_without_cells_asks_for_nothing():
    assert answer(ask(new_notebook())).cells == []
