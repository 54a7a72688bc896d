"""The command line: each command calls the library; bad input ends with exit code 2."""

import io
import os
import sys
from collections.abc import Sequence
from errno import ENOSPC
from typing import Annotated

import typer

import qbhkit
from qbhkit.cli import catalogues, data, hums, melody, training, weights
from qbhkit.cli.terminal import say
from qbhkit.errors import QbhError

app = typer.Typer(rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})
for commands in (melody, hums, training):
    app.registered_commands += commands.app.registered_commands
for group in (catalogues, data, weights):
    app.add_typer(group.app)


@app.callback(help="Query by humming: a hum in, ranked songs out.", invoke_without_command=True)
def _program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="show the version and exit")] = False,
) -> None:
    if version:
        print(f"qbhkit {qbhkit.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        context.fail("Missing command.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; ``sys.argv`` by default.

    Returns:
        0; 2, after one sentence on standard error, for input that the user can correct; 130 after
        Ctrl-C.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # for titles that the terminal cannot print
        sys.stdout.reconfigure(errors="backslashreplace")
    program = typer.main.get_command(app)
    if "_QBHKIT_COMPLETE" in os.environ:  # asked by the shell
        program.main(prog_name="qbhkit")
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        with program.make_context("qbhkit", given) as context:
            return int(program.invoke(context) or 0)
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        used = getattr(error, "ctx", None)
        text = error.format_message().replace("Value error, ", "").rstrip(".")
        say(f"qbhkit: {text}. See '{used.command_path if used else 'qbhkit'} --help'.")
        return 2
    except QbhError as error:
        say(f"qbhkit: {error}")
        return 2
    except BrokenPipeError:  # the pipe's reader has closed it
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        return 0
    except OSError as error:
        cure = "make room, and run the same command again" if error.errno == ENOSPC else ""
        what = f"{error.filename or 'a file'} cannot be used ({error.strerror or error})"
        say(f"qbhkit: {what}{cure and ': '}{cure}.")
        return 2
    except MemoryError:
        say("qbhkit: there is not enough memory: give it less at a time.")
        return 2
    except KeyboardInterrupt:
        say("qbhkit: stopped; run the same command again to go on.")
        return 130
