"""Pages get what they include, and a name that nothing makes is refused."""

import nbformat
import pytest

from icl.errors import Failed
from icl.site import generated


def test_what_a_page_asks_for_is_written_and_nothing_else(tmp_path, monkeypatch):
    made = {name: lambda name=name: f"text of {name}" for name in ("a.txt", "b.svg", "c.txt")}
    monkeypatch.setattr(generated, "contents", lambda *_: made | {"d.txt": lambda: 1 / 0})
    page = "```{include} a.txt\n```\n\n```{raw} html\n:file: c.txt\n```\n\n```{figure} b.svg\n```\n"
    (tmp_path / "page.md").write_text(page)
    generated.write(tmp_path, tmp_path, {}, None)
    assert {path.name for path in tmp_path.iterdir()} == {"page.md", "a.txt", "b.svg", "c.txt"}
    assert (tmp_path / "b.svg").read_text() == "text of b.svg"
    (tmp_path / "page.md").write_text("```{include} nothing.txt\n```\n")
    with pytest.raises(Failed, match=r"includes nothing.txt: generated are a.txt, b.svg, c.txt"):
        generated.write(tmp_path, tmp_path, {}, None)


def test_a_figure_is_found_by_its_name(tmp_path):
    shown = nbformat.v4.new_output("display_data", {"image/svg+xml": "<svg/>"})
    about = {"mystnb": {"figure": {"name": "fig-x"}}}
    cells = [nbformat.v4.new_code_cell("found.plot_x()", outputs=[shown], metadata=about)]
    path = tmp_path / "chapter.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    assert generated.figure(path, "fig-x") == "<svg/>"
    with pytest.raises(Failed, match="chapter: no figure is called fig-y"):
        generated.figure(path, "fig-y")
