"""Chapters: their parameters, their execution by papermill, and what they showed."""

import ast
import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from platform import python_version
from tempfile import TemporaryDirectory
from typing import Any

import click
import nbformat
import papermill
from papermill.iorw import load_notebook_node
from sphinx_external_toc.parsing import MalformedError, parse_toc_yaml
from traitlets.config import Config
from yaml import YAMLError

from icl.claims import MIME
from icl.errors import Failed, Refused, choose, free_memory
from icl.runs import start_worker
from icl.site import digests, prose

KINDS = {"int": click.INT, "float": click.FLOAT, "bool": click.BOOL, "str": click.STRING}
CELL_TIMEOUT = 600  # seconds
A_CHAPTER = 2e9  # bytes of memory that one may take
# No time left: one cell computes, the others show. Not disabled (None) is on a terminal only.
BAR = {"bar_format": "{desc}: |{bar:30}| {n_fmt} of {total_fmt} cells", "disable": None}
logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what matters is raised here


def root() -> Path:
    """The checkout: the nearest folder upwards with a _toc.yml, or the one icl came from."""
    places = [Path.cwd(), *Path.cwd().parents, Path(__file__).parents[2]]
    for place in places:
        if (place / "_toc.yml").is_file() and (place / "book").is_dir():
            return place
    raise Refused(
        f"{Path.cwd()}: not inside a checkout of the book (a folder with _toc.yml, book/)"
    )


@dataclass(frozen=True)
class Parameter:
    """One line of a chapter's parameters cell."""

    name: str
    kind: click.ParamType
    default: Any
    help: str


@dataclass(frozen=True)
class Chapter:
    """An executable page of the book."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    def read(self) -> nbformat.NotebookNode:
        """The notebook; refused where the file is none."""
        try:
            return nbformat.read(self.path, as_version=4)
        except Exception as error:  # of nbformat, jsonschema, json or the file's encoding
            reason = str(error).splitlines()[0][:80]
            raise Refused(f"{self.path.name}: not a notebook ({reason})") from None

    @property
    def title(self) -> str:
        """Its first heading."""
        cells = self.read().cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        found = re.search(r"^# (.+)$", text, re.MULTILINE)
        return found[1] if found else self.name

    def parameters(self) -> list[Parameter]:
        """Names, types, defaults and help, as the parameters cell declares them."""
        self.read()  # which refuses what papermill fails on
        found = papermill.inspect_notebook(self.path)
        return [self._parameter(**about) for about in found.values()]

    def _parameter(self, name: str, inferred_type_name: str, default: str, help: str) -> Parameter:
        with suppress(ValueError, SyntaxError):
            value = ast.literal_eval(default)
            if kind := KINDS.get(inferred_type_name) or KINDS.get(type(value).__name__):
                return Parameter(name, kind, value, help)
        raise Refused(f"{self.path.name}: {name} = {default}: allowed is a number, text, or bool")

    def values(self, given: dict[str, Any]) -> dict[str, Any]:
        """The values of all parameters: those given, else the defaults."""
        return {p.name: p.default for p in self.parameters()} | given

    def changed(self, given: dict[str, Any]) -> dict[str, Any]:
        """Of these values those that are not the defaults, in the order of the parameters."""
        defaults = self.values({})
        given = {choose("parameter", name, defaults): value for name, value in given.items()}
        return {name: given[name] for name, x in defaults.items() if given.get(name, x) != x}

    def digest(self, parameters: dict) -> str:
        """A hash of all that its result depends on."""
        return digests.of_chapter(self.path, parameters)


@dataclass(frozen=True)
class Job:
    """A chapter to execute, the parameters that are not its defaults, and where to."""

    chapter: Chapter
    output: Path
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        given = [f"{name} {value}" for name, value in self.parameters.items()]
        return ", ".join([self.chapter.name, *given])

    def is_done(self) -> bool:
        """Is the output there, and from what the chapter and all that it needs are now?"""
        mark = self.output.exists() and record(self.output).get("digest")
        return bool(mark) and mark == self.chapter.digest(self.chapter.values(self.parameters))


def chapters(folder: Path) -> dict[str, Chapter]:
    """All notebooks in book/, by name, in the order of the table of contents."""
    order = toc(folder)
    paths = sorted((folder / "book").glob("*.ipynb"))
    paths.sort(key=lambda p: order.index(p.stem) if p.stem in order else len(order))
    return {path.stem: Chapter(path) for path in paths}


def toc(folder: Path) -> list[str]:
    """Names of the pages in _toc.yml, in order."""
    try:
        found = parse_toc_yaml(folder / "_toc.yml")
    except (MalformedError, YAMLError) as error:
        raise Refused(f"_toc.yml: {' '.join(str(error).split())}") from None
    return [re.sub(r"^book/|\.(md|ipynb)$", "", name) for name in found]


def execute(chapter: Chapter, parameters: dict, output: Path, watched: bool = False) -> None:
    """Execute a chapter into `output`, which appears only when every cell has run.

    If it is `watched`, a terminal shows a bar, and a cell may take as long as it takes. Raises
    `Refused` where the chapter refuses a parameter's value, and `Failed` with the chapter, the
    cell and the traceback where it breaks.
    """
    parameters, changed = chapter.values(parameters), chapter.changed(parameters)
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_suffix(".unfinished.ipynb")
    mark = chapter.digest(parameters)
    started = time.monotonic()
    try:
        with TemporaryDirectory() as sockets:
            papermill.execute_notebook(
                prose.ask(load_notebook_node(str(chapter.path))),
                unfinished,
                changed,
                kernel_name="python3",
                progress_bar=BAR | {"desc": chapter.name} if watched else False,
                cwd=chapter.path.parent,
                execution_timeout=None if watched else CELL_TIMEOUT,
                extra_arguments=["--log-level=50"],  # no notes on its transport or its end
                # Kernels that start side by side can choose the same port, but not the same file.
                config=Config(KernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"}),
            )
    except papermill.PapermillExecutionError as error:
        if error.ename == Refused.__name__:
            unfinished.unlink()
            raise Refused(error.evalue) from None
        # Counted from 1 as in the source, which lacks the injected cell.
        number = error.cell_index + (0 if changed else 1)
        traceback = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback))
        what = f"{chapter.name}, cell {number}: {error.ename}: {error.evalue}"
        raise Failed(f"{what}\n{traceback}") from None
    except Exception as error:
        raise Failed(f"{chapter.name}: {type(error).__name__}: {error}") from None
    notebook = nbformat.read(unfinished, as_version=4)
    # A dead kernel leaves cells that were never run; papermill marks them completed.
    skipped = [
        number
        for number, cell in enumerate(notebook.cells, 1)
        if cell.cell_type == "code" and cell.source.strip() and cell.execution_count is None
    ]
    if skipped:
        raise Failed(f"{chapter.name}, cell {skipped[0]}: the kernel died before it had run")
    notebook.metadata["papermill"]["input_path"] = str(chapter.path)  # not all that it was given
    notebook.metadata["icl"] = {
        "digest": mark,
        "parameters": parameters,
        "seconds": time.monotonic() - started,
        "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": python_version(),
    }
    nbformat.write(prose.answer(notebook), unfinished)
    unfinished.replace(output)


def execute_all(jobs: list[Job], say: Callable[[str], None]) -> None:
    """Execute the jobs that are not done already; failures are told together, in their order."""
    if failed := sorted((jobs.index(job), error) for job, error in executed(jobs, say) if error):
        raise Failed("\n".join(error for _, error in failed))


def executed(jobs: list[Job], say: Callable[[str], None]) -> Iterator[tuple[Job, str]]:
    """Every job as it ends, with what went wrong; what is not done already runs side by side."""
    running, waiting = {}, [job for job in jobs if not job.is_done()]
    yield from ((job, "") for job in jobs if job not in waiting)
    # As many as memory holds, each on its share of the cores: more threads would only wait.
    cores, room = os.cpu_count() or 1, free_memory() // A_CHAPTER
    count = max(1, int(min(len(waiting), cores, room)))
    with ProcessPoolExecutor(count, initializer=start_worker, initargs=(cores // count,)) as pool:
        while waiting or running:
            while waiting and len(running) < count:
                job = waiting.pop(0)
                say(f"executing {job.title} ...")
                running[pool.submit(execute, job.chapter, job.parameters, job.output)] = job
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                job, error = running.pop(done), done.exception()
                where = "" if isinstance(error, Failed) else f"{job.title}: "
                yield job, f"{where}{error}" if error else ""
                if isinstance(error, BrokenExecutor):  # a killed process: the pool takes no more
                    left, waiting = waiting, []
                    yield from ((job, f"{job.title}: not executed") for job in left)


def record(path: Path) -> dict:
    """When, for how long and with what parameters a notebook was executed; empty if it was not."""
    return nbformat.read(path, as_version=4).metadata.get("icl", {})


def outputs(path: Path) -> Iterator[dict]:
    """All displayed outputs of an executed notebook, as mime bundles."""
    for cell in nbformat.read(path, as_version=4).cells:
        yield from (output.get("data", {}) for output in cell.get("outputs", []))


def verdicts(path: Path) -> list[dict]:
    """The verdicts an executed chapter reached."""
    return [json.loads(data[MIME]) for data in outputs(path) if MIME in data]
