"""The command line: each command calls the library; bad input ends with exit code 2."""

import io
import os
import sys
from collections.abc import Sequence
from errno import ENOSPC

from qbhkit.cli.parser import make_parser
from qbhkit.cli.terminal import say
from qbhkit.errors import QbhError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; ``sys.argv`` by default.

    Returns:
        0; 2, after one sentence on standard error, for input that the user can correct; 130 after
        Ctrl-C.
    """
    options = make_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):  # for titles that the terminal cannot print
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return int(options.run(options) or 0)
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
