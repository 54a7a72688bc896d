import numpy as np
import pytest

from qbhkit.contour import (
    PUBLISHED_MEAN_ST,
    PUBLISHED_STD_ST,
    Contour,
    F0Track,
    from_f0,
    from_notes,
    from_pitch,
    midi_to_hz,
    normalise,
    voiced_median,
)
from qbhkit.errors import QbhError


def track_of(pitch_st, hop_s: float = 0.01) -> F0Track:
    pitch = np.asarray(pitch_st, float)
    return F0Track(np.where(pitch > 0, midi_to_hz(pitch), 0.0), pitch > 0, hop_s)


def tune(seed: int = 0, count: int = 30) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lengths = rng.uniform(0.25, 1.2, count)
    onsets = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
    gaps = np.where(rng.random(count) < 0.3, 0.5, 1.0)  # some notes end early
    return np.stack([onsets, lengths * gaps, rng.integers(50, 80, count)], axis=1)


@pytest.mark.parametrize(
    ("frequency", "voicing", "hop_s", "says"),
    [
        ([100.0, 100.0], [1.0], 0.01, "two equally long rows"),
        ([np.nan], [1.0], 0.01, "NaN or infinite"),
        ([100.0], [np.inf], 0.01, "NaN or infinite"),
        ([8.17], [1.0], 0.01, "is it in semitones"),
        ([22050.1], [1.0], 0.01, "is it in semitones"),
        ([100.0], [1.01], 0.01, "between 0 and 1"),
        ([100.0], [-0.01], 0.01, "between 0 and 1"),
        ([100.0], [1.0], 0.0, "hop must be positive"),
        ([100.0], [1.0], np.nan, "hop must be positive"),
    ],
)
def test_f0_track_refuses(frequency, voicing, hop_s, says):
    with pytest.raises(QbhError, match=says):
        F0Track(np.array(frequency), np.array(voicing), hop_s)


def test_f0_track_voiced_needs_a_pitch_and_half_the_confidence():
    track = F0Track(np.array([0, 100, 100, 100.0]), np.array([1, 0.49, 0.5, 1]), 0.02)
    assert track.voiced.tolist() == [False, False, True, True]
    assert track.duration_s == pytest.approx(0.08)
    assert track.frequency_hz.dtype == np.float32
    F0Track(np.array([8.18, 22050.0]), np.array([0.0, 1.0]))  # the bounds themselves
    assert from_f0(F0Track(np.full(20, 8.18), np.ones(20))).voiced.all()


@pytest.mark.parametrize(
    ("frames", "hop_s", "says"),
    [
        (np.zeros((3, 3)), 0.1, "shape"),
        ([[np.nan, 1]], 0.1, "NaN or infinite"),
        ([[60, 0.5]], 0.1, "0 or 1"),
        ([[60, 0]], 0.1, "unvoiced frames must have pitch 0"),
        ([[141, 1]], 0.1, "MIDI semitones"),
        ([[-13, 1]], 0.1, "MIDI semitones"),
        (np.zeros((2, 2)), -0.1, "hop must be positive"),
    ],
)
def test_contour_refuses(frames, hop_s, says):
    with pytest.raises(QbhError, match=says):
        Contour(np.array(frames), hop_s)


def test_contour_properties():
    contour = from_pitch(np.array([0, 60, 0, 62, 0, 0.0]))
    assert len(contour) == 6
    assert contour.voiced.tolist() == [False, True, False, True, False, False]
    assert contour.pitch_st.tolist() == [0, 60, 0, 62, 0, 0]
    assert contour.voiced_s == pytest.approx(0.2)
    assert contour.duration_s == pytest.approx(0.6)
    assert contour.frames.dtype == np.float32
    assert contour.transposed(-5).pitch_st.tolist() == [0, 55, 0, 57, 0, 0]
    assert Contour(np.array([[-12, 1], [140, 1], [0, 0]])).pitch_st.tolist() == [-12, 140, 0]


def test_trimmed_cuts_both_ends_and_says_how_much():
    shorter, cut_s = from_pitch(np.array([0, 0, 60, 0, 62, 0.0])).trimmed()
    assert shorter.pitch_st.tolist() == [60, 0, 62]
    assert cut_s == pytest.approx(0.2)
    empty, nothing_s = from_pitch(np.zeros(4)).trimmed()
    assert len(empty) == 0
    assert nothing_s == 0


def test_stray_frames_become_unvoiced_and_notes_stay():
    pitch = np.full(40, 60.0)
    pitch[[0, 7, 20, 21, 22, 23]] = 90, 45, 71, 71, 71, 71  # strays, up to four frames long
    pitch[30:] = 72  # a note
    pitch[10:12] = 0
    found = from_pitch(pitch).without_strays()
    assert np.flatnonzero(~found.voiced).tolist() == [0, 7, 10, 11, 20, 21, 22, 23]
    kept = found.voiced
    np.testing.assert_array_equal(found.pitch_st[kept], pitch[kept])
    np.testing.assert_array_equal(found.without_strays().frames, found.frames)
    # a leap of 8 semitones is sung, not strayed
    leap = np.where(np.arange(40) % 9 < 2, 68.0, 60.0)
    assert from_pitch(leap).without_strays().voiced.all()


@pytest.mark.parametrize("pitch", [[], [0.0, 0.0], [60.0], [60.0, 90.0]])
def test_too_few_frames_for_a_stray_to_be_known_stay(pitch):
    contour = from_pitch(np.array(pitch))
    np.testing.assert_array_equal(contour.without_strays().frames, contour.frames)


def test_from_notes_takes_the_note_at_each_centre():
    notes = np.array([[0.0, 0.25, 60], [0.24, 0.26, 62], [0.7, 0.1, 64]])
    assert from_notes(notes).pitch_st.tolist() == [60, 60, 62, 62, 62, 0, 0, 64]
    assert len(from_notes(np.zeros((0, 3)))) == 0
    late = from_notes(np.array([[0.3, 0.2, 60]]))
    assert late.pitch_st.tolist() == [0, 0, 0, 60, 60]


def test_median_takes_voiced_frames_only():
    pitch = np.zeros(30)
    pitch[:6] = 60, 60, 61, 60, 60, 90  # 6 of 10 voiced, one octave slip
    pitch[10:14] = 60  # 4 of 10
    pitch[20:25] = 62  # 5 of 10
    assert from_f0(track_of(pitch)).pitch_st == pytest.approx([60, 0, 62], abs=1e-3)


def test_pick_takes_the_first_frame_of_ten():
    pitch = np.concatenate([[60.0], np.full(9, 72.0), [0.0], np.full(9, 72.0)])
    assert from_f0(track_of(pitch), method="pick").pitch_st == pytest.approx([60, 0])
    assert from_f0(track_of(pitch), method="median").pitch_st == pytest.approx([72, 72])
    with pytest.raises(QbhError, match="Unknown method 'mean': use 'median' or 'pick'"):
        from_f0(track_of([60.0]), method="mean")


def test_last_partial_frame_counts_what_is_there():
    contour = from_f0(track_of(np.concatenate([np.full(10, 60.0), np.full(3, 62.0)])))
    assert contour.pitch_st == pytest.approx([60, 62])
    assert len(from_f0(track_of(np.zeros(0)))) == 0
    assert from_f0(track_of(np.full(4, 60.0))).pitch_st == pytest.approx([60])
    for end, voiced in (([0, 0, 0, 62], False), ([0, 62], True)):
        contour = from_f0(track_of(np.concatenate([np.full(10, 60.0), end])))
        assert contour.voiced.tolist() == [True, voiced]


@pytest.mark.parametrize(
    ("hop_s", "method"),
    [(0.005805, "median"), (0.016, "pick"), (0.032, "median"), (0.1, "median"), (0.01, "pick")],
)
def test_any_hop_gives_the_same_contour_within_a_frame(hop_s, method):
    notes = tune(7)
    end_s = (notes[:, 0] + notes[:, 1]).max()
    times = np.arange(int(end_s / hop_s)) * hop_s
    note = np.searchsorted(notes[:, 0], times, side="right") - 1
    pitch = np.where(times < notes[note, 0] + notes[note, 1], notes[note, 2], 0.0)
    contour, reference = from_f0(track_of(pitch, hop_s), method=method), from_notes(notes)
    assert abs(len(contour) - len(reference)) <= 1
    padded = np.pad(reference.pitch_st, 2, mode="edge")
    for k, frame in enumerate(contour.pitch_st):
        assert np.abs(padded[k + 1 : k + 4] - frame).min() < 0.01, k
    both = min(len(contour), len(reference))
    same = np.abs(contour.pitch_st[:both] - reference.pitch_st[:both]) < 0.01
    assert same.mean() > 0.85


def test_published_normalisation():
    frames = np.array([[PUBLISHED_MEAN_ST, 1], [PUBLISHED_MEAN_ST + PUBLISHED_STD_ST, 1], [0, 0]])
    expected = [[0, 1], [1, 1], [0, 0]]
    np.testing.assert_allclose(normalise(frames, "published"), expected, atol=1e-6)
    assert pytest.approx(61.702336487738215, abs=1e-15) == PUBLISHED_MEAN_ST
    assert pytest.approx(5.5201786930065415, abs=1e-15) == PUBLISHED_STD_ST
    with pytest.raises(QbhError, match="'key' or 'published'"):
        normalise(np.zeros((3, 2)), "Key")


def test_key_normalisation_keeps_intervals_and_forgets_the_key():
    rng = np.random.default_rng(2)
    pitch = np.round(rng.uniform(45, 75, (5, 40)) * 8) / 8
    voiced = rng.random((5, 40)) < 0.7
    voiced[4] = False
    frames = np.stack([np.where(voiced, pitch, 0), voiced], axis=-1)
    moved = np.stack([np.where(voiced, pitch + 7, 0), voiced], axis=-1)
    np.testing.assert_array_equal(normalise(frames, "key"), normalise(moved, "key"))
    assert not np.array_equal(normalise(frames, "published"), normalise(moved, "published"))
    assert (normalise(frames, "key")[~voiced] == 0).all()
    assert normalise(frames, "key").dtype == np.float32
    pitch = normalise(from_pitch(np.array([60, 0, 67, 64.0])).frames, "key")[:, 0]
    np.testing.assert_allclose(pitch * PUBLISHED_STD_ST, [-4, 0, 3, 0], atol=1e-5)


def test_voiced_median_against_a_loop():
    rng = np.random.default_rng(3)
    pitch, voiced = rng.normal(60, 5, (20, 9)), rng.random((20, 9)) < 0.5
    voiced[0], voiced[1] = False, True
    for row, mask, found in zip(pitch, voiced, voiced_median(pitch, voiced), strict=True):
        ordered = sorted(row[mask])
        assert found == (ordered[(len(ordered) - 1) // 2] if ordered else 0)
