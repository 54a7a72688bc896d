"""Which songs may be trained on: the splits, and the training filter."""

from pathlib import Path
from typing import Any, NamedTuple

from qbhkit.contour import CONTOUR_HOP_S, Contour
from qbhkit.corpora import Song, open_corpus, songs_of
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS
from qbhkit.errors import QbhError
from qbhkit.storage import asset, read_json

_SPLIT_OF = {**dict.fromkeys(MUSIC21_COLLECTIONS, "folk"), "pop909": "pop909"}

_MOST_WATCHED = 1000


class TrainingSongs(NamedTuple):
    """Melodies to learn from, which of them are variants of one tune, and some to watch."""

    ids: list[str]
    contours: list[Contour]
    groups: list[int]
    held_out: list[Contour]  # never trained on and not near a protected melody; 1,000 at the most
    songs: list[Song]  # what the contours were made of


def read_split(name: str) -> dict[str, Any]:
    """Read a split by name: ``mir_qbsh``, ``folk`` or ``pop909``.

    The files are ``data/splits`` of the repository, and travel in the wheel.
    """
    packaged = asset("splits")
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "data" / "splits"
    split: dict[str, Any] = read_json(folder / f"{name}.json", "reinstall qbhkit")
    return split


def forbidden_ids(split: dict[str, Any]) -> set[str]:
    """Return the ids that may not be trained on: held out, near a protected melody, too short."""
    return {*split["held_out"], *split["dropped"], *split["too_short"]}


def training_songs(
    corpora: tuple[str, ...], data: Path, hop_s: float = CONTOUR_HOP_S
) -> TrainingSongs:
    """Read the songs of corpora that pass the training filter.

    Args:
        corpora: names; each must have a split.
        data: the folder that holds corpora.
        hop_s: seconds between frames of the contours.

    Raises:
        QbhError: if a corpus has no split, so that nothing could keep evaluation songs out.
    """
    songs: list[Song] = []
    contours: list[Contour] = []
    groups: list[int] = []
    held_out: list[Contour] = []
    leader: dict[str, int] = {}
    for name in corpora:
        if name not in _SPLIT_OF:
            raise QbhError(
                f"{name} has no split, so nothing keeps evaluation songs out of training: use one "
                f"of {', '.join(_SPLIT_OF)}."
            )
        split = read_split(_SPLIT_OF[name])
        forbidden = forbidden_ids(split)
        watched = set(split["held_out"]) - set(split["dropped"]) - set(split["too_short"])
        leader_of = {key: group[0] for group in split["variants"] for key in group}
        for song in songs_of(open_corpus(name, data)):
            if song.id in forbidden:
                if song.id in watched and len(held_out) < _MOST_WATCHED:
                    held_out.append(song.contour(hop_s))
                continue
            tune = f"{_SPLIT_OF[name]}/{leader_of.get(song.id, song.id)}"
            songs.append(song)
            contours.append(song.contour(hop_s))
            groups.append(leader.setdefault(tune, len(leader)))
    return TrainingSongs([song.id for song in songs], contours, groups, held_out, songs)
