"""Answer uploaded recordings as ``qbhkit search --json`` does, from any number of threads."""

from collections import deque
from pathlib import Path
from threading import Lock
from typing import Any

from qbhkit.audio import load, refuse_silence
from qbhkit.embedding.windows import MatchFrom
from qbhkit.errors import QbhError, naming
from qbhkit.pitch.frontends import Frontend, frontend_for
from qbhkit.retrieval.searcher import Searcher, answer_line
from qbhkit.service.app import Recognise
from qbhkit.storage import asset


def recogniser(searcher: Searcher, tracker: str | None, longest_s: float) -> Recognise:
    """Return a function that finds the songs of a recording.

    Args:
        searcher: of a catalogue.
        tracker: name of the pitch tracker for hums; the default one if None.
        longest_s: longer recordings are refused, seconds.

    Returns:
        A function of a file, its name in answer and errors, the number of songs in the answer, and
        ``match_from``. It returns what ``qbhkit search --json`` prints, and raises QbhError if the
        recording cannot be used.

    Raises:
        QbhError: if the tracker cannot be used.
    """
    idle: deque[Frontend] = deque()  # some trackers keep state: one for each thread
    one_search = Lock()  # not all of numba's threading layers allow two callers

    def recognise(path: Path, name: str, k: int, match_from: MatchFrom) -> dict[str, Any]:
        try:
            frontend = idle.pop()
        except IndexError:
            frontend = frontend_for(searcher.embedder.states_of, tracker)
        try:
            audio = load(path, frontend.rate_hz, longest_s)
            refuse_silence(audio, path)
            with naming(path):
                hum = frontend.contour_of(audio)
        except QbhError as error:
            raise QbhError(str(error).replace(str(path), name)) from None
        finally:
            idle.append(frontend)
        try:
            with one_search:
                answers = searcher.search(hum, k, match_from)
        except QbhError as error:
            raise QbhError(f"{name}: {error}.") from None
        return answer_line(name, hum.voiced_s, answers, searcher.confident(answers))

    # so that the first request does not wait for the compiler
    recognise(asset("hums/demo_1.flac"), "demo_1.flac", 1, "anywhere")
    return recognise
