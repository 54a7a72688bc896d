from dataclasses import replace

import numpy as np
import pytest

from qbhkit.contour import Contour, from_pitch
from qbhkit.embedding.augment import Distortions, with_only
from qbhkit.embedding.hum_pairs import AlignedHum, HumConfig, HumPairs, align_contours
from qbhkit.embedding.sampling import ContourBank, MixedPairs, SongPairs, gather, sample_pairs
from qbhkit.embedding.windows import Reading, WindowRange
from qbhkit.errors import QbhError
from qbhkit.training_loop import generator

OFF = with_only(Distortions())


def bank(songs=20, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(30, 60, songs)
    return ContourBank([from_pitch(np.repeat(rng.integers(50, 80, n), 5)) for n in lengths], groups)


def pairs(songs, batch=16, seed=0, rules=None, window=None):
    rng = generator(0, 0, 0, seed)
    return sample_pairs(songs, batch, window or WindowRange(), rules or Distortions(), "key", rng)


def test_gathering_reads_the_nearest_frame_of_its_own_row_and_zeros_outside():
    frames = np.arange(1, 11.0)  # rows of 4 and of 6
    offsets, lengths = np.array([4, 0, 4]), np.array([6, 4, 6])
    positions = np.array([[-0.1, 0.0, 0.9, 5.9, 6.0]] * 2 + [[1.0, 2.0, 3.0, 4.0, 99.0]])
    wanted = [[0, 5, 5, 10, 0], [0, 1, 1, 0, 0], [6, 7, 8, 9, 0]]
    found = gather(frames, offsets, lengths, positions)
    np.testing.assert_array_equal(found, wanted)
    doubled = gather(np.stack([frames, -frames], axis=1), offsets, lengths, positions)
    np.testing.assert_array_equal(doubled, np.stack([found, -found], axis=2))
    np.testing.assert_array_equal(frames, np.arange(1, 11.0))


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


class TestHums:
    def make(self, config=None, songs=12, key_st=4.0, off_st=0.0):
        rng = np.random.default_rng(5)
        contours = [from_pitch(np.repeat(rng.integers(50, 80, 40), 5)) for _ in range(songs)]
        hums = []
        for number, song in enumerate(contours):
            sung = Contour(song.frames[:90]).transposed(key_st)
            frames = sung.frames.copy()
            frames[:, 0] += rng.normal(0, off_st, 90)
            hums.append(AlignedHum(Contour(frames), number, align_contours(sung, song)))
        return HumPairs(hums, contours, config or HumConfig(), Reading(80), "key"), contours

    def test_a_hum_and_its_song_are_paired(self):
        exact = HumConfig(plain=1.0, song_shift=0, song_octaves=0)
        source, contours = self.make(exact)
        found = source.draw(64, generator(0, 0))
        assert found.anchors.shape == found.positives.shape == (64, 80, 2)
        assert source.tunes == len(contours)
        assert set(found.groups) <= set(range(12))
        same = np.abs(found.anchors[..., 0] - found.positives[..., 0]) < 0.01
        assert same.mean() > 0.97  # the key is taken out, and there is nothing else

    def test_parts_are_as_long_and_as_early_as_asked(self):
        config = HumConfig(plain=1.0, song_shift=0, song_octaves=0, shortest_s=3.0, at_start=1.0)
        source, _ = self.make(config)
        parts, windows = source._parts(np.arange(12).repeat(20), generator(0, 0))
        assert 2.9 < parts[:, 1].min() < 3.5
        assert parts[:, 1].max() > 8
        np.testing.assert_allclose(parts[:, 0], 0.05)
        np.testing.assert_allclose(windows, parts, atol=0.11)
        source, _ = self.make(replace(config, at_start=0.0))
        parts, _ = source._parts(np.arange(12).repeat(20), generator(0, 0))
        assert parts[:, 0].max() > 3
        assert (parts.sum(axis=1) <= 9.0).all()

    def test_hums_are_distorted_but_for_the_plain_ones(self):
        plain, _ = self.make(HumConfig(plain=1.0, song_shift=0, song_octaves=0))
        distorted, _ = self.make(HumConfig(plain=0.0, song_shift=0, song_octaves=0))
        gap = [
            np.abs(found.anchors[..., 0] - found.positives[..., 0]).mean()
            for found in (source.draw(64, generator(0, 0)) for source in (plain, distorted))
        ]
        assert gap[1] > gap[0] + 0.05

    def test_hums_that_are_too_far_from_their_song_teach_nothing(self):
        source, _ = self.make(HumConfig(farthest_st=9.0), off_st=0.0)
        assert len(source._hums) == 12
        far = [hum._replace(at=hum.at._replace(distance_st=5.0)) for hum in source._hums[:11]]
        songs = [from_pitch(np.full(100, 60)) for _ in range(12)]
        left = HumPairs([*far, source._hums[11]], songs, HumConfig(), Reading(80), "key")
        assert set(left.draw(30, generator(0, 0)).groups) == {11}
        with pytest.raises(QbhError, match="Not one of 11 hums"):
            HumPairs(far, songs, HumConfig(), Reading(80), "key")

    def test_the_same_item_gives_the_same_pairs(self):
        source, _ = self.make()
        one, two, other = (source.draw(16, generator(0, 0, item)) for item in (1, 1, 2))
        np.testing.assert_array_equal(one.positives, two.positives)
        assert (one.positives != other.positives).any()

    def test_sources_are_mixed_in_their_shares_and_their_tunes_kept_apart(self):
        hums, _ = self.make()
        songs = SongPairs(bank(20), WindowRange(), Distortions(), "key")
        mixed = MixedPairs([(songs, 0.6), (hums, 0.4)])
        found = mixed.draw(50, generator(0, 0))
        assert mixed.tunes == 32
        assert len(found.groups) == len(found.anchors) == 50
        assert (found.groups < 20).sum() == 30
        assert (found.groups >= 20).sum() == 20
        assert found.groups.max() < 32


def test_the_contours_of_a_bank_have_one_hop():
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
            found = sample_pairs(song, 1, self.WINDOW, OFF, "published", generator(0, 0, 0, k))
            assert found.anchors[0, :, 1].tolist() == [0] * 50 + [1] * 200 + [0] * 50
            frames = found.anchors[0, 50:250, 0] * 5.5201786930065415 + 61.702336487738215
            np.testing.assert_allclose(np.diff(frames), 0.1, atol=1e-4)
            begins.add(round(float(frames[0]) * 10) - 1)
            np.testing.assert_array_equal(found.anchors, found.positives)
        assert begins == {0, 50, 100, 150, 200, 250, 300, 350, 400}

    def test_a_hum_at_another_tempo_is_longer_or_shorter(self):
        song = ContourBank([from_pitch(np.full(400, 60.0))])
        rules = replace(OFF, tempo_octaves=0.5)
        voiced = [
            sample_pairs(song, 1, self.WINDOW, rules, "key", generator(0, 0, 0, k)).positives
            [0, :, 1].sum() for k in range(100)
        ]  # fmt: skip
        assert 141 <= min(voiced) < 155
        assert 262 < max(voiced) <= 283

    @pytest.mark.parametrize("stretched", [True, False])
    def test_windows_that_are_mostly_silent_are_drawn_again(self, stretched):
        pitch = np.zeros(1600)
        pitch[:400] = 60
        window = replace(self.WINDOW, stretched=stretched)
        shares = {}
        for least in (0.0, 0.5):
            drawn = replace(window, min_voiced=least)
            found = [sample_pairs(ContourBank([from_pitch(pitch)]), 1, drawn, OFF, "key",
                                  generator(0, 0, 0, k)).anchors for k in range(100)]  # fmt: skip
            shown = 300 if stretched else 200
            enough = [anchor[0, :, 1].sum() >= 0.5 * shown for anchor in found]
            shares[least] = np.mean(enough)
        assert shares[0.0] < 0.35
        assert shares[0.5] > 0.55

    def test_the_song_of_a_hum_is_a_whole_window_that_holds_its_beginning(self):
        pitch = 40 + np.arange(500) / 20
        song, hum = from_pitch(pitch), from_pitch(pitch[200:280])
        config = HumConfig(plain=1.0, at_start=1.0, shortest_s=8.0)
        reading = Reading(300, window_s=20.0)
        at = align_contours(hum, song, 20.0)
        found = HumPairs([AlignedHum(hum, 0, at)], [song], config, reading, "published")
        drawn = found.draw(40, generator(0))
        assert (drawn.positives[..., 1].sum(axis=1) >= 79).all()
        assert (drawn.anchors[..., 1].sum(axis=1) >= 199).all()
        pitches = drawn.anchors[..., 0] * 5.5201786930065415 + 61.702336487738215
        begins = (pitches[:, 60] - 40) * 20 - 10  # frame 50 shows the window's beginning
        assert begins.min() < 160
        assert 150 <= begins.min() <= begins.max() <= 201
