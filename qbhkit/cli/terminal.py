"""What all commands share: words on standard error, and what failures make of the exit code."""

import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qbhkit.errors import Failure


_ACTS = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats, halves of letters, ends of lines


def plain(text: str) -> str:
    """Write out what a terminal would act on: a name may hold line breaks and escape sequences."""
    return "".join(
        sign.encode("unicode_escape").decode() if unicodedata.category(sign) in _ACTS else sign
        for sign in text
    )


def say(text: str) -> None:
    """Say something, in one line, on standard error: standard output is for results."""
    print(plain(text), file=sys.stderr, flush=True)


def quiet() -> bool:
    """Return whether nobody watches: then no bar is shown."""
    return not sys.stderr.isatty()


def report_failures(failures: "list[Failure]", total: int, inputs: Sequence[str]) -> int:
    """Say what failed; the code is 2 if a file named by the user failed, or nothing went well."""
    for failure in failures:
        say(f"qbhkit: {failure.reason}")
    if failures and total > 1:
        say(f"qbhkit: {len(failures)} of {total} failed, the others are done.")
    named = {str(Path(name)) for name in inputs}
    fatal = any(failure.name in named for failure in failures) or len(failures) == total
    return 2 if failures and fatal else 0
