import numpy as np
import pytest

from qbhkit.contour import CONTOUR_HOP_S, from_pitch
from qbhkit.evaluation.benchmarks.bench_failures import Failure, followed, summary
from qbhkit.evaluation.cross_validation import EmbeddedSongs
from qbhkit.figures import Followed, followed_figure


@pytest.fixture(scope="module")
def searcher(embedder, tunes):
    return EmbeddedSongs(tunes[:12], embedder.reading, CONTOUR_HOP_S).searcher(embedder)


def test_a_hum_follows_its_song_in_the_songs_key_and_its_rests_are_gaps(searcher):
    song = searcher.catalogue.contours[3]
    pitch = song.pitch_st[:90] + 4 * song.voiced[:90]
    first = np.flatnonzero(pitch)[0]
    pitch = pitch[first:]
    pitch[30] = 0
    hum = from_pitch(pitch)
    found = followed(searcher, hum, searcher.scores(hum), 3, "itself")
    assert found.distance_st < 0.1
    assert np.isnan(found.hum_st[30])
    both = np.isfinite(found.hum_st) & np.isfinite(found.song_st)
    assert both.sum() > 50
    np.testing.assert_allclose(found.hum_st[both], found.song_st[both], atol=0.3)
    other = followed(searcher, hum, searcher.scores(hum), 5, "another")
    assert other.distance_st > found.distance_st


def case(distance_st, title=""):
    pitch = np.array([60, 61, np.nan, 62.0])
    return Followed(title, pitch, pitch + distance_st, distance_st)


def test_failures_are_counted_by_what_would_mend_them():
    found = [Failure(2, 1, case(0.5), case(0.6)), Failure(30, 12, case(1.0), case(0.4))]
    expected = {"failures": 2, "nearer": 1, "in_top10": 1, "by_vote_in_top10": 1}
    assert summary(found) == expected
    assert summary([]) == dict.fromkeys(expected, 0)


def test_the_page_draws_each_hum_over_both_songs():
    rows = [(case(k / 10, f"right {k}"), case(k / 20, f"first {k}")) for k in range(3)]
    figure = followed_figure(rows)
    drawn = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title(loc="left") for axes in drawn][:3] == [
        "right 0, 0.00 st", "first 0, 0.00 st", "right 1, 0.10 st",
    ]  # fmt: skip
    assert len(drawn) == 6
    song, hum = drawn[2].lines
    np.testing.assert_allclose(song.get_ydata() - hum.get_ydata(), [0.1, 0.1, np.nan, 0.1])
