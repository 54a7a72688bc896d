"""Render the demo hums that ship in the package: ``python data/make_demo_hums.py``.

Each is hummed (the second: sung on vowels) by the kit's own source-filter voice from a
public-domain tune that no embedding was trained on, in another key, at another speed, with a
singer's errors; two begin inside the tune.
"""

from typing import NamedTuple

import numpy as np

from qbhkit.audio import write_wav
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.corpora.training_songs import forbidden_ids, read_split
from qbhkit.storage import asset, write_json
from qbhkit.synthesis.singer import Voice, render_hum


class Demo(NamedTuple):
    """What to hum: from a tune's second ``start_s``, for ``length_s`` seconds of the tune."""

    collection: str
    song_id: str
    start_s: float
    length_s: float
    voice: Voice


DEMOS = [
    Demo(
        "oneills1850",
        "oneills1850-0487-0500-498",
        0.0,
        11.0,
        Voice(key_st=-19.0, tempo=1.1, note_error_st=0.3),
    ),
    Demo(
        "oneills1850",
        "oneills1850-0201-0300-262",
        8.0,
        12.0,
        Voice(
            style="vowels",
            key_st=-5.0,
            tempo=1.2,
            note_error_st=0.35,
            scoop_st=0.5,
            vibrato_st=0.4,
            breath=0.05,
            consonants=0.3,
        ),
    ),
    Demo(
        "oneills1850",
        "oneills1850-0351-0400-394",
        16.0,
        10.0,
        Voice(key_st=-14.0, tempo=0.85, note_error_st=0.4, gap=0.25, breath=0.03),
    ),
]


def main() -> None:
    """Write NAME.flac and hums.json."""
    held_out = forbidden_ids(read_split("folk"))
    listed = []
    for number, demo in enumerate(DEMOS):
        assert demo.song_id in held_out, f"{demo.song_id} was trained on"
        song = next(
            song
            for song in songs_of(music21_collection(demo.collection))
            if song.id == demo.song_id
        )
        assert song.notes is not None
        onset_s = song.notes[:, 0]
        notes = song.notes[(onset_s >= demo.start_s) & (onset_s < demo.start_s + demo.length_s)]
        hum = render_hum(notes, demo.voice, np.random.default_rng(number))
        name = f"demo_{number + 1}"
        write_wav(hum.audio, asset(f"hums/{name}.flac"))
        listed.append(
            {
                "file": f"{name}.flac",
                "song_id": song.id,
                "title": song.title,
                "start_s": round(float(notes[0, 0]), 2),
                "end_s": round(float(notes[-1, 0] + notes[-1, 1]), 2),
                "key_st": demo.voice.key_st,
                "tempo": demo.voice.tempo,
            }
        )
        print(listed[-1], f"{hum.audio.duration_s:.1f} s")
    write_json(asset("hums/hums.json"), listed)


if __name__ == "__main__":
    main()
