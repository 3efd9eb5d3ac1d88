"""What `icl run` offers: a command per chapter, for a notebook's path, and for all chapters."""

import os
from collections.abc import Callable
from pathlib import Path

import click

from icl.errors import Failed, require, writable
from icl.experiments import TEMPLATE
from icl.site import differences, reruns
from icl.site.chapters import Chapter, Job, chapters, execute, executed, root

ALL = "all"
FEW = 3  # chapters that a line of help can name
# How long threads of OpenMP wait busily for each other. With its own 300,000 two runs that share a
# machine take several times as long; with this not, and one alone takes no longer.
SPINS = "3000"


def names() -> list[str]:
    """What can be run by its name."""
    return [*chapters(root()), ALL]


def command(name: str) -> click.Command:
    """The command that runs a chapter of the book, a notebook at a path, or all chapters."""
    if reruns.is_path(name):
        return _of_chapter(name, reruns.find(name))
    known = chapters(root())
    if name == ALL:
        return _of_all({name: chapter for name, chapter in known.items() if name != TEMPLATE})
    return _of_chapter(name, known[name])


def _of_chapter(name: str, chapter: Chapter) -> click.Command:
    about = f"Execute the chapter {chapter.name} with other parameters."
    parameters = chapter.parameters()
    taken = f"{name}: a parameter named output: --output is where `icl run` writes; rename it"
    require("output" not in {p.name for p in parameters}, taken)
    options = [
        click.Option(
            [f"--{p.name}", p.name], type=p.kind, default=p.default, show_default=True, help=p.help
        )
        for p in parameters
    ]

    def run(folder: Path | None, given: dict) -> None:
        job = reruns.plan(chapter, given, folder)
        writable(job.output.parent)
        published = differences.published(chapter)
        usual = f"; the published run took {published.record['seconds']:.0f} s" if published else ""
        _note(f"running {job.title}{usual}")
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)  # for the kernel
        execute(chapter, job.parameters, job.output, watched=True)
        click.echo("\n".join(differences.report(job.output, published)))
        figures = reruns.extract_figures(job.output)
        click.echo(f"\nnotebook  {job.output}")
        click.echo(f"figures   {len(figures)} beside it")

    return _command(name, about, options, run)


def _of_all(known: dict[str, Chapter]) -> click.Command:
    about = "Execute every chapter with the given parameters, those that have not run before."
    parameters = {name: chapter.parameters() for name, chapter in known.items()}
    kinds = {p.name: p.kind for found in parameters.values() for p in found}
    owners = {
        name: [chapter for chapter, found in parameters.items() if name in {p.name for p in found}]
        for name in kinds
    }
    options = [
        click.Option(
            [f"--{name}", name],
            type=kind,
            help=f"In {', '.join(found) if len(found) <= FEW else f'{len(found)} chapters'}.",
        )
        for (name, kind), found in zip(kinds.items(), owners.values(), strict=True)
    ]

    def run(folder: Path | None, given: dict) -> None:
        given = {name: value for name, value in given.items() if value is not None}
        jobs = []
        for name, chapter in known.items():
            own = {p: value for p, value in given.items() if name in owners[p]}
            jobs.append(reruns.plan(chapter, own, folder))
        for parameter in given:
            lacking = [name for name in known if name not in owners[parameter]]
            if lacking:
                _note(f"without --{parameter}, so as they are there: {', '.join(lacking)}")
        writable(jobs[0].output.parent)
        _run_all(jobs)

    return _command(ALL, about, options, run)


def _run_all(jobs: list[Job]) -> None:
    """Say what each chapter found as it ends; tell all failures together at the end."""
    failures = []
    for job, error in executed(jobs, _note):
        if error:
            failures.append(error)
            continue
        reruns.extract_figures(job.output)
        published = differences.published(job.chapter)
        click.echo("\n".join(differences.brief(job, published)))
    if failures:
        raise Failed("\n".join([f"{len(failures)} of {len(jobs)} chapters failed", *failures]))


def _command(name: str, about: str, options: list[click.Option], run: Callable) -> click.Command:
    """A command with these options that runs into a folder, by default _build/runs."""
    output = click.Option(["--output", "output"], help="Folder in place of _build/runs.")

    def call(output: str | None, **given) -> None:
        run(None if output is None else writable(output), given)

    return click.Command(name, callback=call, params=[*options, output], help=about)


def _note(line: str) -> None:
    click.echo(line, err=True)
