"""From an uploaded file to the answer of ``qbhkit search --json``, from any number of threads."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from qbhkit.audio import load, refuse_silence
from qbhkit.embedding.windows import MatchFrom
from qbhkit.errors import QbhError, naming
from qbhkit.pitch.frontends import Frontend, frontend_for
from qbhkit.retrieval.searcher import Searcher, answer_line
from qbhkit.storage import asset


class Recogniser:
    """Find the songs of recordings.

    Args:
        searcher: of a catalogue.
        tracker: name of the pitch tracker for hums; the default one if None.
        longest_s: longer recordings are refused, seconds.

    Raises:
        QbhError: if the tracker cannot be used.
    """

    def __init__(self, searcher: Searcher, tracker: str | None, longest_s: float) -> None:
        self._searcher = searcher
        self._tracker_name, self._longest_s = tracker, longest_s
        self._idle: deque[Frontend] = deque()
        self._one_search = Lock()  # not all of numba's threading layers allow two callers

    @property
    def songs(self) -> int:
        """Number of songs in the catalogue."""
        return len(self._searcher.catalogue.songs)

    def warm_up(self) -> None:
        """Search with a shipped hum, so that the first request does not wait for the compiler."""
        self(asset("hums/demo_1.flac"), "demo_1.flac", 1, "anywhere")

    def __call__(self, path: Path, name: str, k: int, match_from: MatchFrom) -> dict[str, Any]:
        """Search with one recording.

        Args:
            path: the file.
            name: used in the answer and in errors.
            k: songs in the answer, at least 1.
            match_from: as :meth:`qbhkit.retrieval.searcher.Searcher.scores`.

        Returns:
            The line that ``qbhkit search --json`` prints.

        Raises:
            QbhError: if the recording cannot be used.
        """
        try:
            with self._frontend() as frontend:
                audio = load(path, frontend.rate_hz, self._longest_s)
                refuse_silence(audio, path)
                with naming(path):
                    hum = frontend.contour_of(audio)
        except QbhError as error:
            raise QbhError(str(error).replace(str(path), name)) from None
        try:
            with self._one_search:
                answers = self._searcher.search(hum, k, match_from)
        except QbhError as error:
            raise QbhError(f"{name}: {error}.") from None
        return answer_line(name, hum.voiced_s, answers, self._searcher.confident(answers))

    @contextmanager
    def _frontend(self) -> Iterator[Frontend]:
        """Lend a frontend to one thread at a time: some trackers keep state."""
        try:
            frontend = self._idle.pop()
        except IndexError:
            frontend = frontend_for(self._searcher.embedder.states_of, self._tracker_name)
        try:
            yield frontend
        finally:
            self._idle.append(frontend)
