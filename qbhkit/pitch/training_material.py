"""Training data of ``crnn-lite``: recorded and spoken voices over rendered accompaniments."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.folders import EVALUATION_YEAR, MirQbsh, pop909
from qbhkit.corpora.songs import songs_of
from qbhkit.corpora.training_songs import forbidden_ids, read_split
from qbhkit.pitch.trackers import get_tracker
from qbhkit.pitch.training import MelodyTrainConfig
from qbhkit.synthesis.mixing import Recorded, StemBank, build_bank
from qbhkit.synthesis.voices import recorded_voices, spoken_timbres

_HELD_BACK = 10  # every tenth song is for validation


class Material(NamedTuple):
    """Hold what to train on, and what to validate on: other songs and other singers."""

    bank: StemBank
    voices: list[Recorded]
    watched_bank: StemBank
    watched_voices: list[Recorded]


def training_material(
    config: MelodyTrainConfig, data: Path, folder: Path, progress: bool = True
) -> Material:
    """Gather voices and render excerpts, or open those that were rendered before.

    Args:
        config: of the run.
        data: the folder with ``pop909`` and ``mir-qbsh``, of which only the training singers of the
            evaluation year are used.
        folder: where stems are kept.
        progress: show bars.

    Raises:
        QbhError: if a corpus is not there.
    """
    track = get_tracker().track
    singers = read_split("mir_qbsh")["training_singers"]
    watched = set(singers[len(singers) - config.watched_singers :])
    corpus = MirQbsh(data / "mir-qbsh")
    hums = [hum for hum in corpus.hums(EVALUATION_YEAR) if hum.singer in singers]
    voices = recorded_voices((hum for hum in hums if hum.singer not in watched), track)
    watched_voices = recorded_voices((hum for hum in hums if hum.singer in watched), track)
    timbres = [voice.timbre for voice in voices if voice.timbre is not None]
    if config.speech:
        titles = [song.title for song in songs_of(music21_collection("oneills1850"))]
        timbres += spoken_timbres(config.speech, titles, config.utterances, track, config.seed)
    forbidden = forbidden_ids(read_split("pop909"))
    songs = [path for path in pop909(data / "pop909").files if path.stem not in forbidden]
    chosen = [path for number, path in enumerate(songs) if number % _HELD_BACK]
    few = replace(config.mix, excerpts=config.watched)
    return Material(
        build_bank(
            folder / "training", chosen, timbres, config.mix, config.seed, progress=progress
        ),
        voices,
        build_bank(
            folder / "watched",
            songs[::_HELD_BACK],
            [voice.timbre for voice in watched_voices if voice.timbre is not None],
            few,
            config.seed,
            progress=progress,
        ),
        watched_voices,
    )
