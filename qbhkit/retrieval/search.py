"""From a hum's contour to ranked songs with the matched seconds."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.contour import Contour, stretch
from qbhkit.errors import QbhError
from qbhkit.retrieval.catalogue import Catalogue, Embedder
from qbhkit.retrieval.index import ExactIndex

Anchor = Literal["start", "anywhere"]
SHORTEST_QUERY_S = 1.0  # of voiced sound


@dataclass(frozen=True)
class QueryWindows:
    """How a hum is cut: parts of it vote, so that one wrong bar does not spoil the whole.

    Args:
        piece_s: longer hums are cut into pieces of this length, seconds; those with less than 1 s
            of voice are left out, and ``anchor start`` uses the first of them only.
        piece_step_s: from one piece to the next.
        parts: (start, length) of the windows of a piece, as shares of it. Those with start 0 are
            used by ``anchor start``, all by ``anchor anywhere``.
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


class Answer(NamedTuple):
    """One song of a ranked list."""

    song_id: str
    title: str
    score: float  # mean cosine of the hum's windows with their best windows in the song, -1 to 1
    start_s: float  # the window of the song that is most like the hum
    end_s: float


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
        self.catalogue, self.embedder, self.cut = catalogue, embedder, cut or QueryWindows()
        self.index = ExactIndex(catalogue.vectors, catalogue.song, len(catalogue.songs))

    def scores(self, hum: Contour, anchor: Anchor = "anywhere") -> Scores:
        """Score every song.

        Args:
            hum: the query's contour; silence around it is cut off.
            anchor: ``start`` compares only with windows that begin at a song's first note, and only
                windows that begin with the hum; ``anywhere`` with all.

        Returns:
            Score and best window of every song in the catalogue's order.

        Raises:
            QbhError: if less than 1 s of the hum is voiced.
        """
        frames, pieces = self.query_frames(hum, anchor)
        vectors = self.embedder.embed(frames)
        admitted = self.catalogue.at_start if anchor == "start" else None
        found = self.index.best_windows(vectors, admitted)
        whole = found.similarity[:: len(frames) // pieces]  # the whole piece comes first
        best_piece = whole.argmax(axis=0)
        row = found.row[:: len(frames) // pieces][best_piece, np.arange(len(best_piece))]
        return Scores(found.similarity.astype(float).mean(axis=0), row)

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

    def query_frames(self, hum: Contour, anchor: Anchor) -> tuple[NDArray[np.float32], int]:
        """Cut a hum into windows.

        Returns:
            (pieces * parts, steps, 2) frames, piece by piece, and the number of pieces.
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
            starts, parts = starts[:1], parts[parts[:, 0] == 0]
        within = (np.arange(self.embedder.steps) + 0.5) / self.embedder.steps
        inside = parts[:, :1] + parts[:, 1:] * within  # (parts, steps), shares of a piece
        positions = starts[:, None, None] + inside * length  # (pieces, parts, steps)
        frames = stretch(sung.frames, positions.reshape(-1, self.embedder.steps))
        silent = ~np.any(frames[..., 1], axis=1)
        whole = np.repeat(np.arange(0, len(frames), len(parts)), len(parts))
        frames[silent] = frames[whole[silent]]  # a part that is a pause votes as its whole piece
        return frames.astype(np.float32), len(starts)

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
