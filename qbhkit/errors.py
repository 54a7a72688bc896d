"""The errors of the kit, for bad input and missing packages, each with one plain sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class QbhError(ValueError):
    """Report input that a user can correct: one sentence names the file and what to do."""


class MissingPackageError(QbhError, ImportError):
    """Report that an optional package is not installed, and what to install."""


def missing_package(what: str, install: str) -> MissingPackageError:
    """Return the error that something (``The tracker pesto``) is missing, and how to get it."""
    return MissingPackageError(f"{what} is not installed: pip install {install}.")


class Failure(NamedTuple):
    """Name a file or song that could not be used, and the reason."""

    name: str
    reason: str


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Add the name of a source to every QbhError of the block that lacks it."""
    try:
        yield
    except QbhError as error:
        if str(source) in str(error):
            raise
        raise type(error)(f"{source}: {error}") from None
