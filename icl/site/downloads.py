"""Notebooks as the site's download button gives them: as they stand in the book, ready to begin."""

from pathlib import Path

import nbformat

ABOUT = (
    "This notebook is a chapter of a book, as it stands there: nothing in it has run yet. What you "
    "change in the cell of parameters below is what it runs with. It needs Python 3.11 or newer "
    "and the book's library `icl`, which the next cell installs where it is missing{where}."
)
FROM_CHECKOUT = (
    ", from a checkout of the book: open the notebook in the checkout's own folder, and restart "
    "the kernel when that cell has run"
)
INSTALL = """\
from importlib.util import find_spec

if find_spec("icl") is None:
    %pip install --quiet {source}"""


def write(chapter: Path, output: Path, repository: str | None) -> None:
    """Write a chapter's source with an installation on top, from its repository if that is known.

    It has no outputs, and no injected parameters, which would undo a reader's edits.
    """
    notebook = nbformat.read(chapter, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    about = ABOUT.format(where="" if repository else FROM_CHECKOUT)
    install = INSTALL.format(source=f"git+{repository}" if repository else "-e .")
    first = [
        nbformat.v4.new_markdown_cell(about, id="about"),
        nbformat.v4.new_code_cell(install, id="install"),
    ]
    if notebook.nbformat_minor < 5:  # which has no names of cells
        for cell in first:
            del cell["id"]
    notebook.cells[:0] = first
    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, output)
