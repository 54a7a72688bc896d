import numpy as np
import pytest

from qbhkit.contour import from_pitch
from qbhkit.retrieval.align import CAP_ST, Aligner


def melody(seed, notes=24):
    """A melody of notes of 3 to 6 frames, no two neighbours alike."""
    rng = np.random.default_rng(seed)
    pitch = 60 + np.cumsum(rng.choice([-4, -3, -2, -1, 1, 2, 3, 4], notes))
    return np.repeat(pitch.astype(float), rng.integers(3, 7, notes))


def align(hum, song, start, end, unvoiced_st=CAP_ST):
    songs = [from_pitch(melody(99)), from_pitch(song)]
    aligner = Aligner(songs, unvoiced_st)
    found = aligner.align(from_pitch(hum), np.array([1]), np.array([start]), np.array([end]))
    return [column[0] for column in found]


@pytest.mark.parametrize("key_st", [7.0, -14.4])
def test_a_part_in_another_key_is_found_where_it_lies(key_st):
    song = melody(1)
    distance, start, end, key, frames = align(song[20:70] + key_st, song, 16, 75)
    assert distance == pytest.approx(0, abs=1e-6)
    assert (start, end, frames) == (20, 70, 50)
    assert key == pytest.approx(key_st, abs=1e-5)


def test_a_wrong_octave_counts_no_more_than_a_wrong_note():
    song = melody(4)
    hum = song[10:60].copy()
    hum[20:30] += 12  # a fifth of it
    distance, start, end, _, _ = align(hum, song, 10, 60)
    assert distance <= 0.2 * CAP_ST + 1e-6
    assert abs(start - 10) <= 2
    assert abs(end - 60) <= 2


def test_rests_and_a_late_first_note_do_not_matter():
    song = melody(7)
    late = np.concatenate([np.zeros(30), song])
    late[60:62] = 0  # a breath, within a note or between two
    hum = song[15:70].copy()
    hum[20:22] = 0
    distance, start, end, _, _ = align(hum, late, 45, 100)
    assert distance < 0.3
    assert abs(start - 45) <= 2
    assert abs(end - 100) <= 2


def test_notes_that_a_song_lost_cost_less_than_wrong_ones():
    song = melody(4)
    hum, lost = song[10:60], song.copy()
    lost[30:45] = 0
    wrong = np.where(lost > 0, song, 110)
    costs = [align(hum, one, 10, 60, np.array([3.0, 1.0]))[0] for one in (song, lost, wrong)]
    assert costs[1] < align(hum, lost, 10, 60)[0]
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert 0.1 < costs[1] <= 15 / 50 + 1e-6  # a rest may hold the right pitch
    assert costs[2] > 2 * costs[1]
    aligner = Aligner([from_pitch(one) for one in (song, lost, wrong)], 1.0)
    folded = aligner.folded_distance(from_pitch(hum), np.arange(3))
    assert folded[0] < folded[1] < folded[2]


def test_the_path_leads_every_frame_to_its_note():
    song = np.concatenate([np.zeros(9), melody(8)])
    hum = np.repeat(song[30:70], 2)[: 2 * 40 - 6] + 5.0  # half as fast
    aligner = Aligner([from_pitch(melody(1)), from_pitch(song)])
    path = aligner.path(from_pitch(hum), 1, 5.0)
    assert len(path) == len(hum)
    assert set(np.diff(path)) <= {0, 1, 2}
    np.testing.assert_array_equal(song[path], hum - 5)
    assert not len(aligner.path(from_pitch(np.tile(hum, 9)), 1, 5.0))


@pytest.mark.parametrize("sung", [50, 35])
def test_a_hum_may_go_on_after_a_short_songs_end(sung):
    """Each frame after it costs the cap, also by pitch class; the part of the song is named."""
    song = melody(5)[:60]
    after = np.tile([20.0, 110.0], 15)  # far from everything, and from its neighbours
    hum = np.concatenate([song[-sung:], after])
    distance, start, end, key, _ = align(hum + 2, np.concatenate([np.zeros(10), song]), 40, 70)
    assert distance == pytest.approx(CAP_ST * len(after) / len(hum), abs=0.1)
    assert (abs(start - 70 + sung) <= 3, end, key) == (True, 70, pytest.approx(2, abs=0.1))
    aligner = Aligner([from_pitch(song)])
    (folded,) = aligner.folded_distance(from_pitch(hum), np.array([0]))
    assert folded <= distance + 1e-6
    path = aligner.path(from_pitch(hum), 0, 0.0)
    assert len(path) == len(hum)
    assert path.max() == len(song) - 1
