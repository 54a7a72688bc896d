from pathlib import Path

import numpy as np
import pytest

from qbhkit.contour import F0Track
from qbhkit.corpora import Song, songs_of, stem_of
from qbhkit.corpora.songs import natural_key, skyline
from qbhkit.errors import QbhError


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("00001.f0.csv", "00001"),
        ("A Song.MP3", "A Song"),
        ("take.1.F0.CSV", "take.1"),
        ("notes.csv", "notes"),
        ("plain", "plain"),
        ("voice.f0.webm", "voice.f0"),
    ],
)
def test_stem_is_the_name_without_its_known_suffix(name, stem):
    assert stem_of(Path("folder.mid") / name) == stem


def test_song_needs_exactly_one_melody():
    notes = np.array([[0, 1, 60.0]])
    track = F0Track(np.full(100, 440.0), np.ones(100))
    with pytest.raises(QbhError, match="Song x needs exactly one"):
        Song("x", "x", "here")
    with pytest.raises(QbhError, match="Song x needs exactly one"):
        Song("x", "x", "here", notes=notes, f0=track)


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        (np.zeros((3, 2)), r"shape \(M, 3\)"),
        (np.zeros(3), r"shape \(M, 3\)"),
        ([[0, 1, np.nan]], "finite"),
        ([[1, 1, 60], [0, 1, 60]], "sorted"),
        ([[0, 0, 60]], "longer than 0 s"),
    ],
)
def test_song_refuses_malformed_notes(notes, says):
    with pytest.raises(QbhError, match=says):
        Song("x", "x", "here", notes=np.array(notes))


def test_contour_of_notes_of_f0_and_of_a_recording():
    assert Song("x", "x", "here", notes=np.zeros((0, 3))).contour().duration_s == 0
    by_notes = Song("x", "x", "here", notes=np.array([[0, 0.3, 69.0]])).contour()
    by_f0 = Song("x", "x", "here", f0=F0Track(np.full(30, 440.0), np.ones(30))).contour()
    assert by_notes.pitch_st.tolist() == [69, 69, 69]
    np.testing.assert_allclose(by_f0.frames, by_notes.frames, atol=1e-5)
    with pytest.raises(QbhError, match=r"a\.wav is a recording"):
        Song("x", "x", "here", audio=Path("a.wav")).contour()


def test_songs_of_goes_through_the_files_in_order():
    class Three:
        name = "three"
        files = (Path("b"), Path("a"))

        def read(self, path):
            for k in range(2):
                yield Song(f"{path}{k}", "t", "here", audio=path)

    assert [song.id for song in songs_of(Three())] == ["b0", "b1", "a0", "a1"]


@pytest.mark.parametrize("seed", range(3))
def test_skyline_against_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    count = 40
    begins = rng.integers(0, 100, count)
    lengths = rng.integers(1, 30, count)
    pitches = rng.choice(np.arange(40, 90), count, replace=False)
    line = skyline(np.stack([begins, lengths, pitches], axis=1).astype(float))
    at_tick = np.zeros(140)
    for onset, duration, pitch in line.astype(int):
        assert (at_tick[onset : onset + duration] == 0).all(), "notes of the line overlap"
        at_tick[onset : onset + duration] = pitch
    for now in range(140):  # one frame a tick
        sounding = [
            pitch
            for begin, length, pitch in zip(begins, lengths, pitches, strict=True)
            if begin <= now < begin + length
        ]
        assert at_tick[now] == max(sounding, default=0), now
    assert (np.diff(line[:, 0]) > 0).all()
    assert (line[:, 1] > 0).all()


def test_skyline_keeps_a_monophonic_melody_and_repeated_notes():
    melody = np.array([[0, 1, 60], [1, 1, 60], [2, 0.5, 64], [3, 1, 62.0]])
    np.testing.assert_array_equal(skyline(melody), melody)
    np.testing.assert_array_equal(skyline(melody[::-1]), melody)
    assert skyline(np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize(
    ("notes", "line"),
    [
        ([[0, 1, 60], [0, 1, 67], [0, 1, 64]], [[0, 1, 67]]),  # a chord is its top note
        ([[0, 4, 60], [1, 1, 72]], [[0, 1, 60], [1, 1, 72], [2, 2, 60]]),  # back to a held note
        ([[0, 4, 60], [1, 1, 60]], [[0, 1, 60], [1, 1, 60], [2, 2, 60]]),  # the last to begin
    ],
)
def test_skyline_of_notes_at_the_same_time(notes, line):
    assert skyline(np.array(notes, float)).tolist() == line


def test_natural_order():
    names = ["tune-10", "tune-2", "10", "2", "tune", "a1b10", "a1b9", "t1²3"]
    ordered = ["2", "10", "a1b9", "a1b10", "t1²3", "tune", "tune-2", "tune-10"]
    assert sorted(names, key=natural_key) == ordered
