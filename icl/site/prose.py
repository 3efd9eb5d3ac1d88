"""Numbers in a chapter's text: what its run found, where the text asks for it by {eval}`…`."""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

EVAL = re.compile(r"\{eval\}`([^`]+)`")
ASKING = "numbers-in-text"  # tag of the cell that computes them


def ask(notebook: NotebookNode) -> NotebookNode:
    """Add a last cell that computes what the text asks for, an expression a line."""
    expressions = [x for cell in _texts(notebook) for x in EVAL.findall(cell.source)]
    source = "".join(f"    str({x}),\n" for x in expressions)
    cell = new_code_cell(f"[\n{source}]", metadata={"tags": [ASKING], "papermill": {}})
    notebook.cells += [cell] * bool(expressions)
    return notebook


def answer(notebook: NotebookNode) -> NotebookNode:
    """Put into the text what that cell, executed, has found, and take the cell away."""
    if not notebook.cells:
        return notebook
    *cells, last = notebook.cells
    if ASKING in last.metadata.get("tags", []):
        values = iter(ast.literal_eval(last.outputs[0].data["text/plain"]))
        notebook.cells = cells
        for cell in _texts(notebook):
            cell.source = EVAL.sub(lambda _: next(values), cell.source)
    return notebook


def _texts(notebook: NotebookNode) -> Iterator[NotebookNode]:
    return (cell for cell in notebook.cells if cell.cell_type == "markdown")
