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
from qbhkit.synthesis.mixing import MixConfig, Recorded, StemBank, build_bank
from qbhkit.synthesis.timbre import Timbre
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
    """Gather voices, and render excerpts or open those that were rendered before.

    Args:
        config: of the run.
        data: holds ``pop909`` and ``mir-qbsh``, whose training singers of the evaluation year sing.
        folder: where stems are kept.
        progress: show bars.

    Raises:
        QbhError: if a corpus is not there.
    """
    track = get_tracker().track
    singers = read_split("mir_qbsh")["training_singers"]
    watched = set(singers[len(singers) - config.watched_singers :])
    hums = list(MirQbsh(data / "mir-qbsh").hums(EVALUATION_YEAR))
    forbidden = forbidden_ids(read_split("pop909"))
    songs = [path for path in pop909(data / "pop909").files if path.stem not in forbidden]
    spoken: list[Timbre] = []
    if config.speech:
        titles = [song.title for song in songs_of(music21_collection("oneills1850"))]
        spoken = spoken_timbres(config.speech, titles, config.utterances, track, config.seed)

    few = replace(config.mix, excerpts=config.watched)

    def part(
        name: str, mix: MixConfig, among: set[str], chosen: list[Path], more: list[Timbre]
    ) -> tuple[StemBank, list[Recorded]]:
        voices = recorded_voices((hum for hum in hums if hum.singer in among), track)
        timbres = [voice.timbre for voice in voices if voice.timbre is not None] + more
        bank = build_bank(folder / name, chosen, timbres, mix, config.seed, progress=progress)
        return bank, voices

    to_train = [path for number, path in enumerate(songs) if number % _HELD_BACK]
    return Material(
        *part("training", config.mix, set(singers) - watched, to_train, spoken),
        *part("watched", few, watched, songs[::_HELD_BACK], []),
    )
