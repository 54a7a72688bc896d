from dataclasses import replace

import numpy as np
import pytest

from qbhkit.contour import Contour, from_pitch
from qbhkit.embedding.augment import Distortions, with_only
from qbhkit.embedding.sampling import ContourBank, SongPairs
from qbhkit.embedding.windows import WindowRange
from qbhkit.errors import QbhError
from qbhkit.training_loop import generator

OFF = with_only(Distortions())


def bank(songs=20, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(30, 60, songs)
    return ContourBank([from_pitch(np.repeat(rng.integers(50, 80, n), 5)) for n in lengths], groups)


def pairs(songs, batch=16, seed=0, rules=None, window=None, how="key"):
    source = SongPairs(songs, window or WindowRange(), rules or Distortions(), how)
    return source.draw(batch, generator(0, 0, 0, seed))


def test_shapes_one_song_a_row_and_the_same_item_the_same_pairs():
    found, again, other = pairs(bank(), seed=5), pairs(bank(), seed=5), pairs(bank(), seed=6)
    assert found.anchors.shape == found.positives.shape == (16, 80, 2)
    assert len(set(found.groups)) == 16
    np.testing.assert_array_equal(found.positives, again.positives)
    assert (found.positives != other.positives).any()


def test_reading_the_bank_is_reading_the_song():
    contours = [from_pitch(np.arange(50, 60)), from_pitch(np.arange(70, 75))]
    found = ContourBank(contours).read(
        np.array([1, 0]), np.array([[0.5, 4.9, 5.0], [-0.1, 9.5, 3.2]])
    )
    np.testing.assert_array_equal(found[..., 0], [[70, 74, 0], [0, 59, 53]])
    np.testing.assert_array_equal(found[..., 1], [[1, 1, 0], [0, 1, 1]])


def test_windows_have_the_lengths_asked_for():
    song = ContourBank([from_pitch(np.arange(400) / 10 + 40)])  # pitch tells the frame
    window = WindowRange(shortest_s=5, longest_s=20, at_start=0.0)
    found = [pairs(song, 1, k, window=window, how="published") for k in range(60)]
    spans = [np.ptp(f.anchors[0, :, 0]) * 5.5201786930065415 * 10 * 80 / 79 for f in found]
    assert 48 < min(spans) < 90
    assert 120 < max(spans) < 205


def test_contours_that_make_no_bank_are_refused():
    with pytest.raises(QbhError, match="no melody"):
        ContourBank([Contour(np.zeros((10, 2), np.float32))])
    with pytest.raises(QbhError, match="same hop"):
        ContourBank([from_pitch(np.full(9, 60)), from_pitch(np.full(9, 60), hop_s=0.05)])


def test_windows_are_as_long_in_seconds_whatever_the_hop():
    fine = [from_pitch(np.repeat(np.arange(50, 90), 20), hop_s=0.05) for _ in range(3)]
    coarse = [from_pitch(np.repeat(np.arange(50, 90), 10)) for _ in range(3)]
    window = WindowRange(5.0, 5.0, 50, at_start=1.0)
    for contours in (fine, coarse):
        found = pairs(ContourBank(contours), window=window).anchors
        np.testing.assert_allclose(np.unique(found[0, :, 0]).size, 5)


class TestPublishedWindows:
    """20 s every 5 s, voiced for half, as they are."""

    WINDOW = WindowRange(20, 20, frames=300, stretched=False, step_s=5, at_start=0)

    def test_they_begin_every_five_seconds_and_keep_their_speed(self):
        song = ContourBank([from_pitch(np.arange(1, 612) / 10)])  # pitch tells the frame
        begins = set()
        for k in range(80):
            found = pairs(song, 1, k, OFF, self.WINDOW, "published")
            assert found.anchors[0, :, 1].tolist() == [0] * 50 + [1] * 200 + [0] * 50
            frames = found.anchors[0, 50:250, 0] * 5.5201786930065415 + 61.702336487738215
            np.testing.assert_allclose(np.diff(frames), 0.1, atol=1e-4)
            begins.add(round(float(frames[0]) * 10) - 1)
            np.testing.assert_array_equal(found.anchors, found.positives)
        assert begins == {0, 50, 100, 150, 200, 250, 300, 350, 400}

    def test_a_hum_at_another_tempo_is_longer_or_shorter(self):
        song = ContourBank([from_pitch(np.full(400, 60.0))])
        rules = replace(OFF, tempo_octaves=0.5)
        drawn = [pairs(song, 1, k, rules, self.WINDOW).positives for k in range(100)]
        voiced = [positives[0, :, 1].sum() for positives in drawn]
        assert 141 <= min(voiced) < 155
        assert 262 < max(voiced) <= 283

    @pytest.mark.parametrize("stretched", [True, False])
    def test_windows_that_are_mostly_silent_are_drawn_again(self, stretched):
        pitch = np.zeros(1600)
        pitch[:400] = 60
        window = replace(self.WINDOW, stretched=stretched)
        song = ContourBank([from_pitch(pitch)])
        for least_voiced, lowest, highest in ((0.0, 0.0, 0.35), (0.5, 0.55, 1.0)):
            drawn = replace(window, min_voiced=least_voiced)
            found = [pairs(song, 1, k, OFF, drawn).anchors for k in range(100)]
            enough = (150 if stretched else 100) <= np.sum(found, axis=2)[:, 0, 1]
            assert lowest < enough.mean() <= highest
