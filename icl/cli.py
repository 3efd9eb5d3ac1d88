"""The command `icl`: list, run, train, verify, recheck, build."""

import sys
from textwrap import wrap

import click

from icl.errors import Failed, Refused, brief, choose, require, writable, writable_file

WIDTH = 80  # characters of a line
LONGEST = 600  # characters of a refusal
MOST_SEEDS = 100  # that one call trains, or rechecks
DIGITS = 19  # of a seed: fewer


class OneLine(click.Group):
    """Commands whose errors are one line that says what is allowed."""

    def resolve_command(self, ctx, args):
        """Find a subcommand; a wrong name is refused with the nearest right one."""
        if args and not args[0].startswith("-"):
            choose("command" if ctx.parent is None else "chapter", args[0], self.list_commands(ctx))
        return super().resolve_command(ctx, args)


class Chapters(OneLine):
    """One subcommand per chapter, by its name or its path, and one for all of them."""

    def list_commands(self, ctx):
        from icl.site import commands

        return commands.names()

    def resolve_command(self, ctx, args):
        from icl.site import reruns

        if args and reruns.is_path(args[0]):
            return args[0], self.get_command(ctx, args[0]), args[1:]
        return super().resolve_command(ctx, args)

    def get_command(self, ctx, name):
        from icl.site import commands

        return commands.command(name)


@click.group(cls=OneLine)
@click.version_option(package_name="icl")
def cli():
    """A reproducible companion to two papers on in-context learning."""


@cli.command(name="list")
@click.option("--models", is_flag=True, help="Trained models in place of chapters.")
def list_all(models):
    """List chapters, or trained models with their risk."""
    from icl.site import chapters

    if models:
        list_models()
        return
    found = {name: c.title for name, c in chapters.chapters(chapters.root()).items()}
    column = max(map(len, found)) + 2
    for name, title in found.items():
        lines = wrap(title, WIDTH - column)
        click.echo(f"{name:<{column}}" + f"\n{'':<{column}}".join(lines))
    click.echo("\nicl run CHAPTER --help has its parameters, icl list --models the trained models")


def list_models():
    """Print every model that an experiment plans, with its label and its risk."""
    from icl.experiments import experiments, plans
    from icl.files import catalogue, load

    shipped = catalogue()
    for name, plan in plans().items():
        risk = "not trained"
        if name in shipped:
            risks = load(name).risks
            risk = f"risk {risks.mean():.3g} ({risks.min():.3g} to {risks.max():.3g})"
        about = f"{plan.config.label}: {risk}, {len(plan.seeds)} seeds"
        click.echo("\n".join([name, *_wrapped(about, 4)]))
    trainable = ", ".join(name for name, found in experiments().items() if found.PLANS)
    click.echo("\nchapters with trained models (icl train --experiment CHAPTER):")
    click.echo("\n".join(_wrapped(trainable, 4)))


def _wrapped(text: str, indent: int) -> list[str]:
    return wrap(text, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent,
                break_on_hyphens=False)  # fmt: skip


@cli.group(cls=Chapters)
def run():
    """Execute a chapter, by its name or its path, or all.

    Its parameters are options, see `icl run CHAPTER --help`.
    """


@cli.command()
@click.argument("name", required=False)
@click.option("--experiment", help="Train all models of an experiment, on all cores.")
@click.option("--seeds", help="Training seeds, for example 0,1,2.  [default: the model's]")
@click.option("--steps", type=click.IntRange(1), help="Number of steps.  [default: the recipe's]")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: all cores]")
@click.option("--output", help="File to write; with --experiment, a folder.")
@click.option("--scheduler", help="With --experiment: of a Dask cluster, like tcp://HOST:8786.")
def train(name, experiment, seeds, steps, device, threads, output, scheduler):
    """Train NAME, one of the models that `icl list` shows, or all of an experiment.

    Resumes what was cut, adds seeds that are missing, skips what is finished.
    """
    import torch

    from icl import files, runs
    from icl.experiments import experiments, plans

    choose("device", device, ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
    if experiment:
        alone = {"NAME": name, "--seeds": seeds, "--steps": steps, "--threads": threads}
        given = [option for option, value in alone.items() if value is not None]
        require(not given, f"{', '.join(given)}: not allowed with --experiment")
        known = experiments()
        needed = known[choose("experiment", experiment, known)].PLANS
        folder = files.TRAINED if output is None else output
        folder = writable(folder)
        if scheduler is None:
            runs.train_all(needed, folder, device)
            return
        from icl import cluster

        with cluster.workers(scheduler) as executor:
            runs.train_all(needed, folder, device, executor)
        return
    require(scheduler is None, f"scheduler={scheduler}: needs --experiment")
    require(name is not None, "NAME is missing: name a model, or an experiment with --experiment")
    known = plans()
    plan = known[choose("model", name, known)].adjusted(steps=steps, seeds=_seeds(seeds))
    file = files.file_in(files.TRAINED, name) if output is None else output
    file = writable_file(file, files.SUFFIX)
    if threads:
        torch.set_num_threads(threads)
    runs.train_model(plan, file, device)


def _seeds(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    require(
        len(parts) <= MOST_SEEDS
        and all(part.isdecimal() and len(part) < DIGITS for part in parts)
        and len(set(map(int, parts))) == len(parts),
        f"seeds={brief(text)}: allowed are up to {MOST_SEEDS} different whole numbers separated by "
        f"commas, like 0,1,2, of less than {DIGITS} digits",
    )
    return tuple(map(int, parts))


@cli.command()
@click.argument("names", nargs=-1)
def verify(names):
    """Check that checkpoints came from this code: shipped NAMES or files (default: all).

    Replays the first training steps from the seeds, compares their losses with the recorded
    ones, and recomputes the recorded risk.
    """
    from icl import files, replay

    failed = False
    for name in names or files.catalogue():
        for check in replay.verify(files.load(name)):
            failed |= not check.passed
            click.echo(
                f"{name}: {check.what}: {'same' if check.passed else 'DIFFERENT'} "
                f"(largest relative difference {check.difference:.1e}, "
                f"allowed {check.tolerance:.0e})"
            )
    if failed:
        sys.exit(1)


@cli.command()
@click.argument("chapters", nargs=-1)
@click.option("--seeds", help="Evaluation seeds.  [default: 100,200,300,400,500]")
def recheck(chapters, seeds):
    """Judge the claims of CHAPTERS, or of all, again on other evaluation contexts.

    Executes every chapter that judges once per seed, which takes minutes, and writes the outcomes
    to the file that the page "How everything was run" shows.
    """
    from icl.site import recheck
    from icl.site.chapters import root

    file = recheck.recheck(root(), _seeds(seeds) or recheck.SEEDS, chapters)
    click.echo(f"wrote {file}; `icl build` shows it")


@cli.command()
def build():
    """Execute the chapters that changed and build the site into _build/html."""
    from icl.site import build, chapters

    index = build.build(chapters.root(), say=lambda line: click.echo(line, err=True))
    click.echo(f"open {index}")


def main() -> None:
    """Run the command; a user's mistake is one line on stderr and exit status 2."""
    try:
        sys.exit(cli.main(prog_name="icl", standalone_mode=False))
    except Refused as error:
        message = str(error)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help())
        sys.exit(2)
    except click.NoSuchOption as error:
        options = [o for p in error.ctx.command.get_params(error.ctx) for o in p.opts if "-" in o]
        message = _refusal("option", error.option_name, options)
    except click.ClickException as error:
        message = error.format_message().replace("\n", " ")
    except Failed as error:
        click.echo(f"icl: {error}", err=True)
        sys.exit(1)
    except OSError as error:  # what cannot be written or read: a full disk, no permission
        click.echo(f"icl: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    if len(message) > LONGEST:
        message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 2 :]}"
    click.echo(f"icl: {message}", err=True)
    sys.exit(2)


def _refusal(name: str, value: str, allowed: list[str]) -> str:
    try:
        choose(name, value, allowed)
    except Refused as error:
        return str(error)
    return f"{name}={value!r} is not allowed here"
