"""The errors of the kit: bad input and missing packages, each said in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class QbhError(ValueError):
    """Raise for input a user can mend: one sentence naming the file and the cure.

    The command line prints the sentence and exits with code 2.
    """


class MissingPackageError(QbhError, ImportError):
    """Raise when an optional package is not installed: says what to install."""


def missing_package(what: str, install: str) -> MissingPackageError:
    """Return the error that says what to install.

    Args:
        what: the part that needs it, for example ``The tracker pesto``.
        install: what follows ``pip install``.
    """
    return MissingPackageError(f"{what} is not installed: pip install {install}.")


class Failure(NamedTuple):
    """A file or song that could not be used while the others could, and why."""

    name: str
    reason: str


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Have every error of a block name the file it is about."""
    try:
        yield
    except QbhError as error:
        if str(source) in str(error):
            raise
        raise type(error)(f"{source}: {error}") from None
