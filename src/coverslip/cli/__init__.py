"""The command line: the only place that prints and exits. Each command is thin; the work is in the floors below."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coverslip import __version__
from coverslip.cli import assets, compare, data, explain, search, serve, sharing, submit, training, use, velocity
from coverslip.cli.console import complain


class Interruptible(TyperGroup):
    """Says what an interruption leaves, where typer ends in silence."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("\ninterrupted; what is a run, a comparison or a search goes on with --resume\n")
            raise typer.Exit(130) from None


app = typer.Typer(
    name="coverslip",
    cls=Interruptible,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (training, compare, search, velocity, submit, use, explain, sharing, serve, data, assets):
    group.register(app)


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coverslip {__version__}")
        raise typer.Exit


@app.callback()
def coverslip(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """Scientific images to classifiers that can be trusted, explained and deployed."""


def main() -> None:
    """Run a command. Exit status: 0 done, 1 the work failed, 2 the command or the input is wrong, 130 interrupted."""
    from coverslip.errors import CoverslipError, ResourceError
    from coverslip.runtime import set_waiting

    set_waiting()

    try:
        app()
    except CoverslipError as error:
        sys.exit(complain(error))
    except OSError as error:
        if error.filename is None:
            raise
        sys.exit(complain(ResourceError(f"the system refuses {error.filename}: {error.strerror}")))
    except KeyboardInterrupt:  # before a command began
        sys.exit(130)
