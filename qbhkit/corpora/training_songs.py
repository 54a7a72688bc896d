"""Which songs may be trained on: the splits, and the training filter."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

from qbhkit.config import RENAMED_VALUES
from qbhkit.contour import CONTOUR_HOP_S, Contour
from qbhkit.corpora import Song, open_corpus, songs_of
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS
from qbhkit.errors import QbhError
from qbhkit.storage import asset, read_json

_SPLIT_OF = {
    **dict.fromkeys(MUSIC21_COLLECTIONS, "folk"),
    "pop909": "pop909",
    "pop909-transcribed": "pop909",  # the same songs: each is one tune with its notes
    "seed-contours": "seed_contours",
    "lmd-vocals": "lmd_vocals",
    "hooktheory": "hooktheory",
    "medleydb": "medleydb",
}
SongFilter = Literal["runs", "alignment"]

_MOST_HELD_OUT = 1000


class TrainingSongs(NamedTuple):
    """Melodies to train on, with variants of one tune grouped, and melodies for validation."""

    ids: list[str]  # a song and its transcription have the same id
    contours: list[Contour]
    groups: list[int]  # variants of one tune have the same number
    held_out: list[Contour]  # never trained on, not near a protected melody; 1,000 at most
    songs: list[Song]  # of the contours, introductions included


def read_split(name: str) -> dict[str, Any]:
    """Read a split by name: ``mir_qbsh``, ``folk``, ``pop909`` and so on in ``data/splits``."""
    packaged = asset("splits")
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "data" / "splits"
    split: dict[str, Any] = read_json(folder / f"{name}.json", "reinstall qbhkit")
    return split


def split_of(corpus: str) -> dict[str, Any]:
    """Return the split of a corpus that may be trained on; raise QbhError if it has none."""
    corpus = RENAMED_VALUES.get(corpus, corpus)
    if corpus not in _SPLIT_OF:
        raise QbhError(
            f"{corpus} has no split, so nothing keeps evaluation songs out of training: use one "
            f"of {', '.join(_SPLIT_OF)}."
        )
    return read_split(_SPLIT_OF[corpus])


def forbidden_ids(split: dict[str, Any]) -> set[str]:
    """Return the ids not to train on: held out, near a protected melody, or too short to tell."""
    return {*split["held_out"], *split["dropped"], *split["too_short"]}


def training_songs(
    corpora: tuple[str, ...],
    data: Path,
    hop_s: float = CONTOUR_HOP_S,
    song_filter: SongFilter = "runs",
) -> TrainingSongs:
    """Read the songs of corpora, by name, that pass the training filter.

    Args:
        corpora: names of corpora that have a split.
        data: the folder that holds them.
        hop_s: seconds between frames of the contours.
        song_filter: ``runs`` drops songs that share runs of pitch changes with an evaluation song,
            as for the shipped weights; ``alignment`` also those that hold a stretch of one.

    Raises:
        QbhError: if a corpus is missing, or has no split to keep evaluation songs out.

    Notebook: notebooks/06_train_self_supervised.py
    """
    songs: list[Song] = []
    contours: list[Contour] = []
    groups: list[int] = []
    held_out: dict[str, Contour] = {}  # by song: its notes and its transcription count once
    leader: dict[str, int] = {}
    aligned = read_split("evaluation_variants") if song_filter == "alignment" else {}

    def contour_of(song: Song) -> Contour:
        return song.contour(hop_s).trimmed()[0]  # an introduction teaches nothing

    for name in (RENAMED_VALUES.get(name, name) for name in corpora):
        split = split_of(name)
        variants = set(aligned.get(_SPLIT_OF[name], ()))
        forbidden = forbidden_ids(split) | variants
        watched = set(split["held_out"]) - set(split["dropped"]) - set(split["too_short"])
        watched -= variants
        leader_of = {key: group[0] for group in split["variants"] for key in group}
        for song in songs_of(open_corpus(name, data)):
            if song.id in forbidden:
                if song.id in watched and len(held_out) < _MOST_HELD_OUT:
                    held_out.setdefault(f"{_SPLIT_OF[name]}/{song.id}", contour_of(song))
                continue
            tune = f"{_SPLIT_OF[name]}/{leader_of.get(song.id, song.id)}"
            songs.append(song)
            contours.append(contour_of(song))
            groups.append(leader.setdefault(tune, len(leader)))
    ids = [song.id for song in songs]
    return TrainingSongs(ids, contours, groups, list(held_out.values()), songs)
