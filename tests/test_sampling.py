import numpy as np
import pytest

from qbhkit.contour import Contour, from_pitch
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.sampling import ContourBank, WindowRange, sample_pairs
from qbhkit.errors import QbhError
from qbhkit.runs import generator


def bank(songs=20, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(30, 60, songs)
    return ContourBank([from_pitch(np.repeat(rng.integers(50, 80, n), 5)) for n in lengths], groups)


def pairs(songs, batch=16, seed=0, rules=None, window=None):
    rng = generator(0, 0, 0, seed)
    return sample_pairs(songs, batch, window or WindowRange(), rules or Distortions(), "key", rng)


def test_shapes_and_one_song_a_row():
    found = pairs(bank())
    assert found.anchors.shape == found.positives.shape == (16, 80, 2)
    assert len(set(found.groups)) == 16


def test_every_epoch_worker_and_item_has_its_own_stream():
    draws = {
        tuple(generator(0, epoch, worker, item).random(2))
        for epoch in range(4) for worker in range(4) for item in range(4)
    }  # fmt: skip
    assert len(draws) == 64
    np.testing.assert_array_equal(generator(1, 2, 3, 4).random(5), generator(1, 2, 3, 4).random(5))
    assert generator(1, 0, 0, 0).random() != generator(2, 0, 0, 0).random()


def test_the_same_item_gives_the_same_pairs():
    one, two, other = pairs(bank(), seed=5), pairs(bank(), seed=5), pairs(bank(), seed=6)
    np.testing.assert_array_equal(one.positives, two.positives)
    assert (one.positives != other.positives).any()


def test_reading_the_bank_is_reading_the_song():
    contours = [from_pitch(np.arange(50, 60)), from_pitch(np.arange(70, 75))]
    found = ContourBank(contours).read(
        np.array([1, 0]), np.array([[0.5, 4.9, 5.0], [-0.1, 9.5, 3.2]])
    )
    np.testing.assert_array_equal(found[..., 0], [[70, 74, 0], [0, 59, 53]])
    np.testing.assert_array_equal(found[..., 1], [[1, 1, 0], [0, 1, 1]])


def test_positives_are_nearer_to_their_anchor_than_to_others():
    mild = Distortions(start_shift=0, tempo_octaves=0, slice_tempo=0.02)
    found = pairs(bank(), batch=20, rules=mild)
    gap = np.abs(found.anchors[:, None, :, 0] - found.positives[None, :, :, 0]).mean(axis=2)
    assert (gap.argmin(axis=1) == np.arange(20)).mean() > 0.8


def test_windows_have_the_lengths_asked_for():
    song = ContourBank([from_pitch(np.arange(400) / 10 + 40)])  # pitch tells the frame
    window = WindowRange(shortest_s=5, longest_s=20, at_start=0.0)
    found = [sample_pairs(song, 1, window, Distortions(), "published", generator(0, 0, 0, k))
             for k in range(60)]  # fmt: skip
    spans = [np.ptp(f.anchors[0, :, 0]) * 5.5201786930065415 * 10 * 80 / 79 for f in found]
    assert 48 < min(spans) < 90
    assert 120 < max(spans) < 205


def test_an_empty_bank_is_refused():
    with pytest.raises(QbhError, match="no melody"):
        ContourBank([Contour(np.zeros((10, 2), np.float32))])
