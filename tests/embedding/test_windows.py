import numpy as np
import pytest

from qbhkit.contour import from_pitch
from qbhkit.embedding.windows import (
    QueryWindows,
    Reading,
    WindowGrid,
    cut_query,
    cut_song,
    query_windows_for,
    sliding_windows,
    stretch,
)


def test_stretch_reads_nearest_frames_and_nothing_outside():
    frames = from_pitch(np.array([60, 62, 64.0])).frames
    read = stretch(frames, np.array([-0.1, 0.0, 0.99, 1.0, 2.5, 3.0]))
    assert read[:, 0].tolist() == [0, 60, 60, 62, 64, 0]
    assert read[:, 1].tolist() == [0, 1, 1, 1, 1, 0]
    assert stretch(frames[:0], np.array([0.5])).tolist() == [[0, 0]]
    assert stretch(frames, np.zeros((2, 4))).shape == (2, 4, 2)


def test_windows_have_exact_times_and_the_last_ends_with_the_song():
    found = sliding_windows(from_pitch(np.full(237, 60.0)), 5.0, 1.0)
    assert [window.start_frame for window in found] == [*range(0, 187, 10), 187]
    assert all(window.end_frame - window.start_frame == 50 for window in found)
    assert found[-1].end_frame == 237
    assert found[-1].end_s == pytest.approx(23.7, abs=1e-12)
    for window in found:
        assert window.start_s == pytest.approx(window.start_frame * 0.1, abs=1e-12)
        assert window.end_s == pytest.approx(window.end_frame * 0.1, abs=1e-12)


@pytest.mark.parametrize(
    ("frames", "length_s", "step_s", "spans"),
    [
        (60, 5.0, 1.0, [(0, 50), (10, 60)]),  # the last is not repeated
        (3, 0.01, 0.01, [(0, 1), (1, 2), (2, 3)]),  # a frame at least
        (1, 5.0, 1.0, [(0, 1)]),  # short songs give one window
        (50, 5.0, 1.0, [(0, 50)]),
    ],
)
def test_windows_of_songs_of_any_length(frames, length_s, step_s, spans):
    found = sliding_windows(from_pitch(np.full(frames, 60.0)), length_s, step_s)
    assert [(window.start_frame, window.end_frame) for window in found] == spans


def test_windows_are_kept_when_half_voiced():
    pitch = np.zeros(100)
    pitch[:25] = 60
    pitch[75:] = 60
    assert [w.start_frame for w in sliding_windows(from_pitch(pitch), 5.0, 1.0)] == [0, 50]
    pitch[24] = 0
    assert [w.start_frame for w in sliding_windows(from_pitch(pitch), 5.0, 1.0)] == [50]
    assert len(sliding_windows(from_pitch(pitch), 5.0, 1.0, min_voiced=0.0)) == 6
    assert sliding_windows(from_pitch(np.zeros(80)), 5.0, 1.0) == []
    assert sliding_windows(from_pitch(np.zeros(0)), 5.0, 1.0, min_voiced=0.0) == []


class TestReading:
    def test_stretched_windows_of_any_length_fill_all_frames(self):
        found = Reading(4).positions(np.array([0.0, 10.0]), np.array([4.0, 2.0]))
        np.testing.assert_allclose(found, [[0.5, 1.5, 2.5, 3.5], [10.25, 10.75, 11.25, 11.75]])

    def test_others_keep_their_speed_in_the_middle_of_silence(self):
        found = Reading(6, window_s=0.4).positions(np.array([7.0, 7.0]), np.array([4.0, 3.0]))
        np.testing.assert_allclose(
            found, [[-1, 7.5, 8.5, 9.5, 10.5, -1], [-1, 7.5, 8.5, 9.5, -1, -1]]
        )

    def test_of_what_is_too_long_the_middle_is_read(self):
        found = Reading(3, window_s=0.3).positions(np.array([0.0]), np.array([7.0]))
        np.testing.assert_allclose(found, [[2.5, 3.5, 4.5]])


def test_a_song_window_is_read_from_its_start_to_its_end():
    song = from_pitch(np.concatenate([np.zeros(7), 60 + np.arange(200) / 10]))
    cut = cut_song(song, WindowGrid(), Reading(20))
    assert len(cut.frames) > 10
    for frames, start, end in zip(cut.frames, cut.start, cut.end, strict=True):
        read = 7 + np.round((frames[:, 0] - 60) * 10)  # which frames of the song they are
        assert start <= read.min() <= start + (end - start) / 20
        assert end - 1 - (end - start) / 20 <= read.max() < end


def test_query_windows_lie_in_their_segment_and_the_first_is_all_of_it():
    start, length = np.array(QueryWindows().windows).T
    assert (start[0], length[0]) == (0, 1)
    assert (start >= 0).all()
    assert (start + length <= 1).all()


@pytest.mark.parametrize(("reading", "strays"), [(Reading(), 0), (Reading(200, 20.0), 2)])
def test_queries_lose_stray_frames_but_not_those_of_published_weights(reading, strays):
    pitch = np.full(80, 60.0)
    pitch[[20, 41]] = 95
    cut = cut_query(from_pitch(pitch), "anywhere", query_windows_for(reading), reading)
    (segment,) = cut.segments
    assert (segment.pitch_st == 95).sum() == strays
    assert (cut.frames[0, :, 0] == 95).sum() == strays
