"""What all commands share: messages on standard error, and the exit code of failures."""

import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qbhkit.errors import Failure


_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats, surrogates, line separators


def plain(text: str) -> str:
    """Escape what a terminal would act on: a name may hold line breaks and escape sequences."""
    return "".join(
        sign.encode("unicode_escape").decode()
        if unicodedata.category(sign) in _UNPRINTABLE
        else sign
        for sign in text
    )


def say(text: str) -> None:
    """Print one line to standard error; standard output is for results."""
    print(plain(text), file=sys.stderr, flush=True)


def quiet() -> bool:
    """Return whether standard error is not a terminal, so that no progress bar is shown."""
    return not sys.stderr.isatty()


def report_failures(failures: "list[Failure]", total: int, inputs: Sequence[str]) -> int:
    """Report failures; return 2 if everything or a file that the user named failed, else 0."""
    for failure in failures:
        say(f"qbhkit: {failure.reason}")
    if failures and total > 1:
        say(f"qbhkit: {len(failures)} of {total} failed, the others are done.")
    named = {str(Path(name)) for name in inputs}
    fatal = any(failure.name in named for failure in failures) or len(failures) == total
    return 2 if failures and fatal else 0
