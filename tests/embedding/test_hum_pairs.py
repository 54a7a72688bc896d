from dataclasses import replace

import numpy as np
import pytest

from qbhkit.audio import write_wav
from qbhkit.contour import Contour, from_pitch
from qbhkit.corpora import Song
from qbhkit.corpora.folders import HumRecording
from qbhkit.embedding.augment import Distortions
from qbhkit.embedding.hum_pairs import (
    AlignedHum,
    HumConfig,
    HumPairs,
    align_contours,
    find_pairs,
)
from qbhkit.embedding.sampling import ContourBank, MixedPairs, SongPairs
from qbhkit.embedding.windows import Reading, WindowRange, stretch
from qbhkit.errors import QbhError
from qbhkit.pitch.trackers import get_tracker
from qbhkit.synthesis.singer import Voice, render_hum
from qbhkit.training_loop import generator

EXACT = HumConfig(plain=1.0, song_shift=0, song_octaves=0)


def tune(count=30, seed=0, frames=6):
    return from_pitch(np.repeat(np.random.default_rng(seed).integers(55, 72, count), frames))


def reading(song, first, last, count, key_st=0.0):
    positions = first + (np.arange(count) + 0.5) / count * (last - first)
    return Contour(stretch(song.frames, positions)).transposed(key_st)


def silence(frames):
    return np.zeros((frames, 2), np.float32)


class TestAlignment:
    @pytest.mark.parametrize(("tempo", "key_st"), [(0.6, -7.0), (1.0, 0.0), (1.0, 4.0), (1.7, 4.0)])
    def test_the_end_and_the_key_are_found(self, tempo, key_st):
        song = tune()
        hum = reading(song, 0, 90, round(90 / tempo), key_st)
        found = align_contours(hum, song)
        assert found.song_s[-1] == pytest.approx(9.0, abs=0.7)  # within a note
        assert found.key_st == key_st
        assert found.distance_st < 0.3

    def test_the_path_rises_and_keeps_to_half_and_double(self):
        song = tune(seed=3)
        found = align_contours(reading(song, 0, 100, 80), song)
        ratio = np.diff(found.song_s) / np.diff(found.hum_s)
        assert 0.49 < ratio.min() <= ratio.max() < 2.01

    @pytest.mark.parametrize("start_s", [0.0, 2.0])
    def test_silence_before_hum_and_song_is_counted_from_wherever_it_begins(self, start_s):
        song, before = tune(), round(10 * start_s)
        late = Contour(np.concatenate([tune(seed=1).frames[:before], silence(12), song.frames]))
        hum = Contour(np.concatenate([silence(5), song.frames[:60]]))
        found = align_contours(hum, late, start_s)
        assert (found.hum_s[0], found.song_s[0]) == pytest.approx((0.55, start_s + 1.25))
        assert found.distance_st == pytest.approx(0)
        config = replace(EXACT, at_start=1.0, shortest_s=6.0)
        source = HumPairs([AlignedHum(hum, 0, found)], [late], config, Reading(60), "key")
        pairs = source.draw(4, generator(0))
        assert np.abs(pairs.anchors - pairs.positives).max() < 0.01

    def test_nothing_voiced_or_a_song_that_is_much_too_short_is_refused(self):
        silent = Contour(silence(20))
        for hum, song in ((silent, tune()), (tune(), silent)):
            with pytest.raises(QbhError, match="nothing voiced"):
                align_contours(hum, song)
        with pytest.raises(QbhError, match="half as long"):
            align_contours(tune(), from_pitch(np.full(10, 60.0)))


def test_a_pair_is_the_part_of_the_song_that_was_hummed(tmp_path):
    notes = np.stack([0.5 * np.arange(24), np.full(24, 0.45), 60 + np.arange(24) * 5 % 9], axis=1)
    hum = render_hum(notes[:12], Voice(note_error_st=0, timing_error=0), np.random.default_rng(0))
    write_wav(hum.audio, tmp_path / "hum.wav")
    song = Song("a", "A", "a.mid", "none", notes=notes)
    recorded = HumRecording(tmp_path / "hum.wav", "a", "somebody", None)
    (pair,), failures = find_pairs([recorded], [song], get_tracker("praat"), progress=False)
    assert (pair.song_id, failures) == ("a", [])
    assert pair.start_s == pytest.approx(0, abs=0.1)
    assert pair.end_s == pytest.approx(6, abs=0.4)


def hum_pairs(config=EXACT, songs=12):
    """Hums of the first nine seconds of songs, four semitones higher."""
    contours = [tune(40, seed, 5) for seed in range(songs)]
    hums = []
    for number, song in enumerate(contours):
        sung = Contour(song.frames[:90]).transposed(4.0)
        hums.append(AlignedHum(sung, number, align_contours(sung, song)))
    return HumPairs(hums, contours, config, Reading(80), "key")


class TestHums:
    def test_a_hum_and_its_song_are_paired(self):
        source = hum_pairs()
        found, again, other = (source.draw(64, generator(0, 0, item)) for item in (1, 1, 2))
        assert found.anchors.shape == found.positives.shape == (64, 80, 2)
        assert source.tunes == 12
        assert set(found.groups) <= set(range(12))
        same = np.abs(found.anchors[..., 0] - found.positives[..., 0]) < 0.01
        assert same.mean() > 0.97  # the key is taken out, and there is nothing else
        np.testing.assert_array_equal(found.positives, again.positives)
        assert (found.positives != other.positives).any()

    def test_parts_are_as_long_and_as_early_as_asked(self):
        hums = np.arange(12).repeat(20)
        early = hum_pairs(replace(EXACT, at_start=1.0))
        parts, windows = early._parts(hums, generator(0, 0))
        assert 2.9 < parts[:, 1].min() < 3.5
        assert parts[:, 1].max() > 8
        np.testing.assert_allclose(parts[:, 0], 0.05)
        np.testing.assert_allclose(windows, parts, atol=0.11)
        parts, _ = hum_pairs(replace(EXACT, at_start=0.0))._parts(hums, generator(0, 0))
        assert parts[:, 0].max() > 3
        assert (parts.sum(axis=1) <= 9.0).all()

    def test_hums_are_distorted_but_for_the_plain_ones(self):
        gap = [
            np.abs(found.anchors[..., 0] - found.positives[..., 0]).mean()
            for found in (
                hum_pairs(replace(EXACT, plain=plain)).draw(64, generator(0, 0))
                for plain in (1.0, 0.0)
            )
        ]
        assert gap[1] > gap[0] + 0.05

    def test_hums_that_are_too_far_from_their_song_teach_nothing(self):
        source = hum_pairs()
        far = [hum._replace(at=hum.at._replace(distance_st=5.0)) for hum in source.hums[:11]]
        songs = [from_pitch(np.full(100, 60)) for _ in range(12)]
        left = HumPairs([*far, source.hums[11]], songs, HumConfig(), Reading(80), "key")
        assert set(left.draw(30, generator(0, 0)).groups) == {11}
        with pytest.raises(QbhError, match="Not one of 11 hums"):
            HumPairs(far, songs, HumConfig(), Reading(80), "key")

    def test_sources_are_mixed_in_their_shares_and_their_tunes_kept_apart(self):
        bank = ContourBank([tune(seed=seed) for seed in range(20)])
        songs = SongPairs(bank, WindowRange(), Distortions(), "key")
        mixed = MixedPairs([(songs, 0.6), (hum_pairs(), 0.4)])
        found = mixed.draw(50, generator(0, 0))
        assert mixed.tunes == 32
        assert len(found.groups) == len(found.anchors) == 50
        assert (found.groups < 20).sum() == 30
        assert (found.groups >= 20).sum() == 20
        assert found.groups.max() < 32

    def test_the_song_of_a_hum_is_a_whole_window_that_holds_its_beginning(self):
        pitch = 40 + np.arange(500) / 20
        song, hum = from_pitch(pitch), from_pitch(pitch[200:280])
        config = HumConfig(plain=1.0, at_start=1.0, shortest_s=8.0)
        at = align_contours(hum, song, 20.0)
        published = Reading(300, window_s=20.0)
        found = HumPairs([AlignedHum(hum, 0, at)], [song], config, published, "published")
        drawn = found.draw(40, generator(0))
        assert (drawn.positives[..., 1].sum(axis=1) >= 79).all()
        assert (drawn.anchors[..., 1].sum(axis=1) >= 199).all()
        pitches = drawn.anchors[..., 0] * 5.5201786930065415 + 61.702336487738215
        begins = (pitches[:, 60] - 40) * 20 - 10  # frame 50 shows the window's beginning
        assert 150 <= begins.min() < 160 < begins.max() <= 201
