from pathlib import Path

import numpy as np
import pytest

from qbhkit.contour import F0Track
from qbhkit.corpora import Song, stem_of
from qbhkit.corpora.songs import natural_key, skyline
from qbhkit.errors import QbhError


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("00001.f0.csv", "00001"),
        ("A Song.MP3", "A Song"),
        ("take.1.F0.CSV", "take.1"),
        ("plain", "plain"),
        ("voice.f0.webm", "voice.f0"),
    ],
)
def test_stem_is_the_name_without_its_known_suffix(name, stem):
    assert stem_of(Path("folder.mid") / name) == stem


@pytest.mark.parametrize(
    ("notes", "says"),
    [
        (np.zeros((3, 2)), r"shape \(M, 3\)"),
        ([[0, 1, np.nan]], "finite"),
        ([[1, 1, 60], [0, 1, 60]], "sorted"),
        ([[0, 0, 60]], "longer than 0 s"),
    ],
)
def test_song_refuses_malformed_notes(notes, says):
    with pytest.raises(QbhError, match=says):
        Song("x", "x", "here", notes=np.array(notes))


def test_contour_of_notes_of_f0_and_of_a_recording():
    with pytest.raises(QbhError, match="Song x needs exactly one"):
        Song("x", "x", "here")
    with pytest.raises(QbhError, match="Song x needs exactly one"):
        Song("x", "x", "here", notes=np.zeros((0, 3)), audio=Path("a.wav"))
    assert Song("x", "x", "here", notes=np.zeros((0, 3))).contour().duration_s == 0
    by_notes = Song("x", "x", "here", notes=np.array([[0, 0.3, 69.0]])).contour()
    by_f0 = Song("x", "x", "here", f0=F0Track(np.full(30, 440.0), np.ones(30))).contour()
    assert by_notes.pitch_st.tolist() == [69, 69, 69]
    np.testing.assert_allclose(by_f0.frames, by_notes.frames, atol=1e-5)
    with pytest.raises(QbhError, match=r"a\.wav is a recording"):
        Song("x", "x", "here", audio=Path("a.wav")).contour()


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


def test_of_equal_pitches_the_note_that_began_last_is_sung():
    line = skyline(np.array([[0, 4, 60], [1, 1, 60.0]])).tolist()
    assert line == [[0, 1, 60], [1, 1, 60], [2, 2, 60]]


def test_natural_order():
    names = ["tune-10", "tune-2", "10", "2", "tune", "a1b10", "a1b9", "t1²3"]
    ordered = ["2", "10", "a1b9", "a1b10", "t1²3", "tune", "tune-2", "tune-10"]
    assert sorted(names, key=natural_key) == ordered
