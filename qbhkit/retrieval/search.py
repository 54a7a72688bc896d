"""From a hum's contour to ranked songs with the matched seconds."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import Contour, Reading, stretch
from qbhkit.errors import QbhError
from qbhkit.retrieval.catalogue import Catalogue, Embedder
from qbhkit.retrieval.index import BestWindows, ExactIndex

Anchor = Literal["start", "anywhere"]
SHORTEST_QUERY_S = 1.0  # of voiced sound


@dataclass(frozen=True)
class QueryWindows:
    """How a hum is cut: parts of it vote, so that one wrong bar does not spoil the whole.

    Args:
        piece_s: longer hums are cut into pieces of this length, seconds; those with less than 1 s
            of voice are left out, and ``anchor start`` uses the first of them only.
        piece_step_s: from one piece to the next.
        parts: (start, length) of the windows of a piece, as shares of it.
        sharpness: how much more the likest windows count than the others: 0 takes their mean.
    """

    piece_s: float = 14.0
    piece_step_s: float = 7.0
    parts: tuple[tuple[float, float], ...] = (
        (0.0, 1.0),
        (0.0, 0.84),
        (0.0, 0.7),
        (0.0, 0.5),
        (0.15, 0.85),
        (0.3, 0.7),
        (0.5, 0.5),
    )
    sharpness: float = 4.0


def cut_of(reading: Reading) -> QueryWindows:
    """Return how hums are cut for a model: in parts, or whole where windows keep their speed."""
    if reading.window_s is None:
        return QueryWindows()
    return QueryWindows(1.5 * reading.window_s, 0.75 * reading.window_s, ((0.0, 1.0),))


# Whoever hums a song from its start is at 4 s of it after 2.6 to 6.2 s, give or take.
_SLOWEST, _FASTEST, _SLACK_S = 0.65, 1.55, 0.7


class Answer(NamedTuple):
    """One song of a ranked list."""

    song_id: str
    title: str
    score: float  # of the hum's windows and their best ones in the song, cosines, -1 to 1
    start_s: float  # the window of the song that is most like the hum
    end_s: float


def answer_line(query: str, hum: Contour, answers: list[Answer]) -> dict[str, Any]:
    """Return what ``qbhkit search --json`` prints of a query, and what the HTTP service answers."""
    return {
        "query": query,
        "voiced_s": round(hum.voiced_s, 3),
        "results": [answer._asdict() for answer in answers],
    }


class Scores(NamedTuple):
    """What a search knows of every song: its score, and its best window."""

    score: NDArray[np.float64]  # (songs,)
    row: NDArray[np.int64]  # (songs,) number of the window


class Searcher:
    """Search a catalogue with the weights that made it.

    Args:
        catalogue: the songs.
        embedder: must be the one the catalogue was built with.
        cut: how hums are cut.

    Raises:
        QbhError: if the catalogue was made by another model.

    Notebook: notebooks/00_hum_to_song.py
    """

    def __init__(
        self, catalogue: Catalogue, embedder: Embedder, cut: QueryWindows | None = None
    ) -> None:
        if catalogue.model != embedder.identity:
            raise QbhError(
                f"{catalogue.path} was made by the model {catalogue.model}, not "
                f"{embedder.identity}: build it again with these weights."
            )
        self.catalogue, self.embedder = catalogue, embedder
        self.cut = cut or cut_of(embedder.reading)
        self.index = ExactIndex(catalogue.vectors, catalogue.song, len(catalogue.songs))
        first = np.searchsorted(catalogue.song, np.arange(len(catalogue.songs)))
        first_s = np.minimum.reduceat(catalogue.start_s, first)
        self._since_s = catalogue.start_s - first_s[catalogue.song]  # (W,) since the first note
        self._latest_s = np.maximum.reduceat(self._since_s, first)[catalogue.song]  # (W,)

    def scores(self, hum: Contour, anchor: Anchor = "anywhere") -> Scores:
        """Score every song.

        Args:
            hum: the query's contour; silence around it is cut off.
            anchor: ``start`` compares the hum's beginning with windows that begin at a song's first
                note, and what comes later with windows about as far on; ``anywhere`` with all.

        Returns:
            Score and best window of every song in the catalogue's order.

        Raises:
            QbhError: if less than 1 s of the hum is voiced.
        """
        frames, begins_s = self.query_frames(hum, anchor)
        found = self._best_windows(self.embedder.embed(frames), begins_s, anchor)
        whole = slice(None, None, len(self.cut.parts))  # comes first of each piece
        best_piece = found.similarity[whole].argmax(axis=0)
        row = found.row[whole][best_piece, np.arange(len(best_piece))]
        return Scores(_soft_mean(found.similarity.astype(float), self.cut.sharpness), row)

    def _best_windows(self, vectors: NDArray, begins_s: NDArray, anchor: Anchor) -> BestWindows:
        """Find every part's best window in each song, among those that the anchor admits."""
        if anchor == "anywhere":
            return self.index.best_windows(vectors)
        shape = len(vectors), len(self.catalogue.songs)
        best = BestWindows(np.empty(shape, np.float32), np.empty(shape, np.int64))
        for begin_s in np.unique(begins_s):
            chosen = begins_s == begin_s
            admitted = self._about(begin_s) if begin_s else self.catalogue.at_start
            best.similarity[chosen], best.row[chosen] = self.index.best_windows(
                vectors[chosen], admitted
            )
        return best

    def _about(self, begin_s: float) -> NDArray[np.bool_]:
        """(W,) whether a window begins where a hum may be after so long; a song's last one may."""
        earliest = np.minimum(_SLOWEST * begin_s - _SLACK_S, self._latest_s)
        latest = np.maximum(_FASTEST * begin_s + _SLACK_S, earliest)
        return (self._since_s >= earliest) & (self._since_s <= latest)

    def search(self, hum: Contour, k: int = 10, anchor: Anchor = "anywhere") -> list[Answer]:
        """Return the ``k`` best songs, best first; arguments and errors as :meth:`scores`."""
        found = self.scores(hum, anchor)
        catalogue = self.catalogue
        order = np.argsort(-found.score, kind="stable")[: max(0, k)]
        return [
            Answer(
                catalogue.songs[song]["id"],
                catalogue.songs[song]["title"],
                round(float(found.score[song]), 6),
                round(float(catalogue.start_s[found.row[song]]), 3),
                round(float(catalogue.end_s[found.row[song]]), 3),
            )
            for song in order
        ]

    def query_frames(
        self, hum: Contour, anchor: Anchor
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Cut a hum into windows.

        Returns:
            (pieces * parts, L, 2) frames, piece by piece, and (pieces * parts,) seconds from the
            hum's first note to the beginning of each.
        """
        sung, _ = hum.trimmed()
        if sung.voiced_s < SHORTEST_QUERY_S - 1e-9:
            raise QbhError(
                f"only {sung.voiced_s:.1f} s of the hum is voiced, {SHORTEST_QUERY_S:.0f} s is "
                "needed: hum louder, longer, or closer to the microphone"
            )
        starts, length = self._pieces(sung)
        parts = np.array(self.cut.parts)
        if anchor == "start":
            starts = starts[:1]
        begins = (starts[:, None] + parts[:, 0] * length).reshape(-1)  # (pieces * parts,)
        lengths = np.tile(parts[:, 1] * length, len(starts))
        frames = stretch(sung.frames, self.embedder.reading.positions(begins, lengths))
        silent = ~np.any(frames[..., 1], axis=1)
        whole = np.repeat(np.arange(0, len(frames), len(parts)), len(parts))
        frames[silent] = frames[whole[silent]]  # a part that is a pause votes as its whole piece
        begins = np.where(silent, begins[whole], begins)
        return frames.astype(np.float32), begins * sung.hop_s

    def _pieces(self, sung: Contour) -> tuple[NDArray[np.int64], int]:
        """Return the first frame of each piece with 1 s of voice, and their length in frames."""
        length = round(self.cut.piece_s / sung.hop_s)
        if len(sung) <= length:
            return np.zeros(1, np.int64), len(sung)
        step = round(self.cut.piece_step_s / sung.hop_s)
        starts = np.append(np.arange(0, len(sung) - length, step), len(sung) - length)
        voiced = np.concatenate([[0], np.cumsum(sung.voiced)])
        voiced_s = (voiced[starts + length] - voiced[starts]) * sung.hop_s
        enough = voiced_s >= min(SHORTEST_QUERY_S - 1e-9, voiced_s.max())
        return starts[enough], length


def _soft_mean(values: NDArray, sharpness: float) -> NDArray:
    """Return the mean of rows, to which the highest give most: log(mean(exp(s * x))) / s."""
    if sharpness == 0:
        return values.mean(axis=0)
    return np.log(np.exp(sharpness * values).mean(axis=0)) / sharpness
