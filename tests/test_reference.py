"""The API reference: whole, and what docstrings say in plain prose is what it shows."""

import ast
import io
import re
from inspect import cleandoc
from pathlib import Path

import docutils.core
import docutils.nodes
import pytest
from docutils.utils import Reporter

from icl.site import markup
from icl.site.chapters import toc

ROOT = Path(__file__).parent.parent
CORE = {p.stem: p for p in sorted((ROOT / "icl").glob("[a-z]*.py")) if p.stem != "cli"}
FRONT = (ROOT / "book" / "api.md").read_text(encoding="utf-8")
PAGES = {p.stem: p.read_text(encoding="utf-8") for p in (ROOT / "book" / "api").glob("*.md")}


def test_every_module_of_the_core_is_on_one_page_and_listed_there_and_in_front():
    documented = [
        name for page in PAGES.values() for name in re.findall(r"automodule:: icl\.(\w+)", page)
    ]
    assert sorted(documented) == sorted(CORE)
    assert sorted(re.findall(r"^   icl\.(\w+)$", FRONT, re.MULTILINE)) == sorted(CORE)
    for page in PAGES.values():
        named = re.findall(r"^## `icl\.(\w+)`$", page, re.MULTILINE)
        assert named == re.findall(r"automodule:: icl\.(\w+)", page)


def test_its_pages_are_in_the_table_of_contents_in_the_order_of_the_front_page():
    titles = [
        re.match(r"# (.+)", PAGES[name.removeprefix("api/")])[1]
        for name in toc(ROOT)
        if name.startswith("api/")
    ]
    assert titles == re.findall(r"^## (.+)$", FRONT, re.MULTILINE)
    assert len(titles) == len(PAGES)


def test_the_code_of_the_front_page_runs(capsys):
    (program,) = re.findall(r"```python\n(.*?)```", FRONT, re.DOTALL)
    exec(compile(program, "api.md", "exec"), {})
    assert re.fullmatch(r"0\.\d+\s\[0\.\d+,\s0\.\d+\]\n", capsys.readouterr().out)


def parsed(lines):
    """A docstring as the reference reads it; a warning is an error."""
    complaints = io.StringIO()
    settings = {"warning_stream": complaints, "report_level": Reporter.INFO_LEVEL}
    tree = docutils.core.publish_doctree("\n".join(markup(lines)), settings_overrides=settings)
    assert not complaints.getvalue()
    return tree


def docstrings():
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef
    for module, path in CORE.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kinds) and (text := ast.get_docstring(node)):
                yield f"{module}.{getattr(node, 'name', '')}", text


def test_no_docstring_loses_a_sign_or_gains_markup():
    plain = docutils.nodes.Text | docutils.nodes.literal | docutils.nodes.paragraph
    blocks = docutils.nodes.doctest_block | docutils.nodes.literal_block
    lists = docutils.nodes.bullet_list | docutils.nodes.list_item | docutils.nodes.document
    count = 0
    for name, text in docstrings():
        tree = parsed(text.splitlines())
        shown, said = ("".join(x.replace("`", "").split()) for x in (tree.astext(), text))
        assert shown == said, name
        for node in tree.findall():
            assert isinstance(node, plain | blocks | lists), f"{name}: {node.tagname}"
        count += 1
    assert count > 250


def test_signs_of_mathematics_mean_themselves():
    text = "Γ* (1/n) Σ x_i y_i_ of |w|² *or* **so**, [1]_ and a\\b; `P_k*` is code"
    tree = parsed([text])
    assert tree.astext() == text.replace("`", "")
    assert [node.astext() for node in tree.findall(docutils.nodes.literal)] == ["P_k*"]


def test_fields_formulas_and_examples_keep_their_lines():
    tree = parsed(
        cleandoc(
            """
            What it is.

            first: (B,) a field
                over two lines.
            second, third: (M,) fields of `code`.

                a = b_i,   c = |d|
                e = f

            >>> 1 + 1
            2
            """
        ).splitlines()
    )
    fields = [item.astext() for item in tree.findall(docutils.nodes.list_item)]
    assert fields == ["first: (B,) a field\nover two lines.", "second, third: (M,) fields of code."]
    (formula,) = tree.findall(docutils.nodes.literal_block)
    assert formula.astext() == "a = b_i,   c = |d|\ne = f"
    (example,) = tree.findall(docutils.nodes.doctest_block)
    assert example.astext() == ">>> 1 + 1\n2"


@pytest.mark.parametrize("line", ["Shapes: M models.", "in words: not a field of one name"])
def test_what_only_looks_like_a_field_stays_prose(line):
    assert markup([line]) == [line]
