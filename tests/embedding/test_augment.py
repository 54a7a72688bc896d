from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest

from qbhkit.contour import normalise
from qbhkit.embedding.augment import (
    GROUPS,
    Distortions,
    after_warp,
    distort,
    warp_positions,
    with_only,
    without,
)
from qbhkit.embedding.windows import Reading
from qbhkit.errors import QbhError

GOLDEN = Path(__file__).parents[1] / "golden" / "distortions.npz"
OFF = with_only(Distortions())
EVERYTHING = replace(
    Distortions(), **{field.name: 1.0 for field in fields(Distortions) if "chance" in field.name}
)


def melody(batch=64, notes=10, frames=8, seed=0):
    """(B, L, 2): notes of 8 frames, of which the last is a pause."""
    rng = np.random.default_rng(seed)
    pitch = np.repeat(rng.integers(55, 75, (batch, notes)), frames, axis=1).astype(np.float32)
    voiced = np.tile(np.arange(frames) < frames - 1, (batch, notes))
    return np.stack([np.where(voiced, pitch, 0), voiced], axis=-1).astype(np.float32)


def only(**rules):
    return replace(OFF, **rules)


def changed_pitch(rules, seed=1):
    frames = melody()
    out = distort(frames, rules, np.random.default_rng(seed))
    both = (out[..., 1] > 0) & (frames[..., 1] > 0)
    return frames, out, np.where(both, out[..., 0] - frames[..., 0], np.nan)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_is_switched_off_or_distorts_alone(group):
    rules, frames = Distortions(), melody()
    off, alone = without(rules, group), with_only(rules, group)
    for name, value in asdict(rules).items():
        assert getattr(off, name) == (0 if name in GROUPS[group] else value)
        assert getattr(alone, name) == (value if name in (*GROUPS[group], "most_slices") else 0)
    assert with_only(rules, *GROUPS) == rules
    window = np.zeros(64), np.full(64, 80.0), Reading(80)
    plain, warped = (
        warp_positions(*window, these, np.random.default_rng(0)) for these in (OFF, alone)
    )
    assert np.allclose(warped, plain) != (group == "time")
    out = distort(frames, alone, np.random.default_rng(0))
    assert (out == frames).all() == (group == "time")


def test_an_unknown_group_is_named():
    for switch in (without, with_only):
        with pytest.raises(QbhError, match="'rhythm': use time, pitch, voicing, tracker"):
            switch(Distortions(), "pitch", "rhythm")


@pytest.mark.parametrize("rules", [Distortions(), replace(EVERYTHING, lost_frame_share=1.0)])
def test_the_input_is_left_alone_and_the_output_is_a_contour(rules):
    frames = melody()
    before = frames.copy()
    out = distort(frames, rules, np.random.default_rng(0))
    assert out.shape == frames.shape
    np.testing.assert_array_equal(frames, before)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert set(np.unique(out[..., 1])) <= {0.0, 1.0}
    assert not out[out[..., 1] == 0, 0].any()
    assert (out[..., 1].sum(axis=1) > 0).all()


def test_a_key_change_moves_every_frame_of_a_contour_alike():
    _, _, moved = changed_pitch(only(key_st=6.0))
    shift = np.nanmean(moved, axis=1)
    np.testing.assert_allclose(
        moved - shift[:, None], np.where(np.isnan(moved), np.nan, 0), atol=1e-4
    )
    assert np.abs(shift).max() <= 6.0
    assert np.ptp(shift) > 6.0


@pytest.mark.parametrize(
    ("rules", "steps"),
    [
        ({"wrong_note": 1.0}, {-4, -3, -2, -1, 1, 2, 3, 4}),
        ({"octave_note_chance": 1.0, "octave_note_share": 0.2}, {-12, 0, 12}),
    ],
)
def test_errors_of_notes_are_whole_steps_for_the_whole_note(rules, steps):
    _, _, moved = changed_pitch(only(**rules))
    notes = moved.reshape(64, 10, 8)[:, :, :7]
    np.testing.assert_allclose(notes, np.round(notes[:, :, :1]).repeat(7, 2), atol=1e-4)
    assert set(np.round(notes).flat) == steps


def test_slices_get_their_own_offset_and_jump_by_an_octave():
    _, _, moved = changed_pitch(only(offset_chance=1.0, offset_st=1.0))
    levels = [len(np.unique(np.round(row[~np.isnan(row)], 3))) for row in moved]
    assert max(levels) <= 7
    assert np.mean(levels) > 2
    _, _, moved = changed_pitch(only(octave_chance=1.0))
    assert set(np.round(moved[~np.isnan(moved)], 3)) == {-12, 0, 12}


def test_filling_sings_through_pauses_with_the_note_before_but_not_around_the_melody():
    frames = melody()
    frames[:, :5] = 0
    out = distort(frames, only(fill_chance=1.0), np.random.default_rng(1))
    assert (out[:, 5:79, 1] == 1).all()
    assert not out[:, :5].any()
    assert not out[:, 79].any()
    np.testing.assert_array_equal(out[:, 7, 0], frames[:, 6, 0])


def test_staccato_cuts_the_end_of_notes_only():
    frames, out, _ = changed_pitch(only(staccato_chance=1.0, staccato_share=1.0))
    lost = (frames[..., 1] > 0) & (out[..., 1] == 0)
    assert lost.any()
    assert not lost.reshape(64, 10, 8)[:, :, :6].any()


def test_a_crop_takes_ends_and_what_it_says():
    frames, out, _ = changed_pitch(only(crop_chance=1.0, crop_share=0.5))
    kept = out[..., 1].sum(axis=1) / frames[..., 1].sum(axis=1)
    assert 0.45 < kept.min() < 0.8
    inner = out[..., 1].astype(bool)
    first, last = inner.argmax(axis=1), 79 - inner[:, ::-1].argmax(axis=1)
    for row, a, b in zip(range(64), first, last, strict=True):
        np.testing.assert_array_equal(out[row, a : b + 1], frames[row, a : b + 1])


def test_smoothing_glides_between_notes_without_inventing_voice():
    frames, out, moved = changed_pitch(only(smooth_chance=1.0))
    np.testing.assert_array_equal(out[..., 1], frames[..., 1])
    middle = np.abs(moved.reshape(64, 10, 8)[:, :, 3])
    edge = np.abs(moved.reshape(64, 10, 8)[:, 1:, 0])
    assert middle.max() < 0.05
    assert edge.mean() > 0.2


def test_warped_positions_rise_and_keep_within_the_rules():
    start, length = np.full(500, 100.0), np.full(500, 80.0)
    rules = only(start_shift=0.1, tempo_octaves=0.25, slice_tempo=0.25)
    grid = warp_positions(start, length, Reading(80), rules, np.random.default_rng(0))
    assert (np.diff(grid, axis=1) > 0).all()
    span = grid[:, -1] - grid[:, 0]
    assert span.min() > 79 * 2**-0.25 * 0.97
    assert span.max() < 79 * 2**0.25 * 1.03
    assert np.abs(grid[:, 0] - 100).max() < 8 + 1
    pace = np.diff(grid, axis=1)
    assert (pace.max(axis=1) / pace.min(axis=1)).max() <= 2**0.5 + 1e-6
    assert (pace.max(axis=1) / pace.min(axis=1)).mean() > 1.15


def test_a_cropped_hum_that_keeps_its_speed_lies_in_the_middle():
    start, length = np.full(400, 100.0), np.full(400, 100.0)
    reading, rules = Reading(200, window_s=10), only(crop_chance=0.8, crop_share=0.5)
    grid = warp_positions(start, length, reading, rules, np.random.default_rng(0))
    inside = grid >= 0
    before, after = inside.argmax(axis=1), inside[:, ::-1].argmax(axis=1)
    assert np.abs(before - after).max() <= 1
    left = inside.sum(axis=1)
    assert left.min() < 55
    assert 0.1 < (left == 100).mean() < 0.3  # a fifth is not cropped
    first = np.array([row[row >= 0][0] for row in grid])
    assert 100 <= first.min() < 102
    assert first.max() > 140  # either end
    assert after_warp(reading, rules).crop_chance == 0
    assert after_warp(Reading(80), rules) == rules


@pytest.mark.parametrize("steps", [1, 200])
def test_any_length_works_and_silence_stays(steps):
    frames = np.ascontiguousarray(melody(notes=25)[:, :steps])
    frames[3] = 0
    out = distort(frames, EVERYTHING, np.random.default_rng(0))
    assert out.shape == frames.shape
    assert ((out[..., 1].sum(axis=1) > 0) == (np.arange(64) != 3)).all()
    assert not out[3].any()


def test_a_note_left_out_is_a_rest_or_goes_to_the_note_before():
    frames = melody()
    rules = only(left_out_chance=1.0, left_out_share=0.2)
    out = distort(frames, rules, np.random.default_rng(1))
    before, after = (x.reshape(64, 10, 8, 2)[:, :, :7] for x in (frames, out))
    assert (after == after[:, :, :1]).all()  # whole notes
    rests = after[:, :, 0, 1] == 0
    moved = ~rests & (after[:, :, 0, 0] != before[:, :, 0, 0])
    assert 0.07 < rests.mean() < 0.13
    after_kept = moved[:, 1:] & ~moved[:, :-1] & ~rests[:, :-1]
    assert after_kept.any()
    np.testing.assert_array_equal(after[:, 1:, 0, 0][after_kept], before[:, :-1, 0, 0][after_kept])


def test_an_added_note_passes_to_the_next_in_the_second_half():
    frames, out, moved = changed_pitch(only(added_chance=1.0, added_share=0.3))
    np.testing.assert_array_equal(out[..., 1], frames[..., 1])
    notes = moved.reshape(64, 10, 8)[:, :, :7]
    assert not notes[:, :, :4].any()
    late = notes[:, :, 4:]
    assert (late == late[:, :, :1]).all()
    assert 0.2 < late[:, :, 0].astype(bool).mean() < 0.4
    step, sung = np.diff(frames[:, ::8, 0], axis=1), late[:, :-1, 0]
    wide = (np.abs(step) > 2.5) & (sung != 0)
    np.testing.assert_array_equal(sung[wide], np.round(step[wide] / 2))
    assert set(sung[(np.abs(step) == 2) & (sung != 0)]) == {-2, -1, 1, 2}


def test_legato_sings_through_short_rests_only():
    frames = melody()
    frames[:, 21:23] = 0  # with the pause after it, three frames
    frames[:, 45:47] = 0
    frames[:, 47] = frames[:, 44]  # two frames
    frames[:, 59:62] = 0
    out = distort(frames, only(legato_chance=1.0, legato_frames=2), np.random.default_rng(0))
    silent = np.flatnonzero(out[0, :, 1] == 0)
    np.testing.assert_array_equal(silent, [21, 22, 23, 59, 60, 61, 79])
    assert (out[..., 1] == out[:1, :, 1]).all()
    for rest in (7, 45, 46, 71):
        np.testing.assert_array_equal(out[:, rest, 0], out[:, rest - 1, 0])
    sung = frames[..., 1] > 0
    np.testing.assert_array_equal(out[sung], frames[sung])


def test_a_glide_leads_from_note_to_note_but_not_across_a_rest():
    rules = only(glide_chance=1.0, glide_frames=3)
    frames = distort(melody(), only(fill_chance=1.0), np.random.default_rng(0))
    out = distort(frames, rules, np.random.default_rng(0))
    np.testing.assert_array_equal(out[..., 1], frames[..., 1])
    before, after = frames[..., 0], out[..., 0]
    lengths = set()
    for row, last in np.argwhere(np.diff(before[:, :72], axis=1)):
        onset, height = last + 1, before[row, last + 1] - before[row, last]
        left = (before[row, onset : onset + 7] - after[row, onset : onset + 7]) / height
        size = int((np.abs(left) > 1e-4).sum())
        lengths.add(size)
        glide = 1 - np.arange(1, size + 1) / (size + 1)
        np.testing.assert_allclose(left, np.append(glide, np.zeros(7 - size)), atol=1e-4)
    assert lengths == {1, 2, 3}
    np.testing.assert_array_equal(distort(melody(), rules, np.random.default_rng(0)), melody())


def test_a_modulation_changes_the_key_once_at_the_beginning_of_a_note():
    _, _, moved = changed_pitch(only(modulation_chance=1.0, modulation_st=2.0))
    notes = moved.reshape(64, 10, 8)[:, :, 0]
    np.testing.assert_allclose(
        np.nan_to_num(moved).reshape(64, 10, 8)[:, :, :7], notes[:, :, None].repeat(7, 2), atol=1e-4
    )
    assert (notes[:, 0] == 0).all()
    assert ((np.abs(notes[:, -1]) >= 0.999) & (np.abs(notes[:, -1]) <= 2.001)).all()
    assert ((np.abs(np.diff(notes, axis=1)) > 1e-3).sum(axis=1) == 1).all()


def test_distorted_contours_are_the_same_in_every_key():
    """Rules look at intervals only, so that what follows may normalise the key away."""
    frames = melody()
    higher = frames + np.where(frames[..., 1:] > 0, [7, 0], 0).astype(np.float32)
    low, high = (
        normalise(distort(x, EVERYTHING, np.random.default_rng(2)), "key") for x in (frames, higher)
    )
    np.testing.assert_allclose(low, high, atol=1e-4)


def examples():
    """What the rules make of contours, by what is done to them."""
    half = {field.name: 0.5 for field in fields(Distortions) if "chance" in field.name}
    start, length = np.arange(20) * 10.0, np.linspace(30, 120, 20)
    found = {
        "as shipped": distort(melody(60, 5), Distortions(), np.random.default_rng(1)),
        "each rule for half of them": distort(
            melody(60, 5), replace(Distortions(), **half), np.random.default_rng(2)
        ),
    }
    for name, reading in (("stretched", Reading(40)), ("at their speed", Reading(40, window_s=3))):
        found[name] = warp_positions(start, length, reading, EVERYTHING, np.random.default_rng(3))
    return found


def test_distortions_are_those_of_the_shipped_training():
    """The same seed gives the same examples as ever: they were written by
    ``np.savez_compressed(GOLDEN, **examples())``."""
    found = examples()
    with np.load(GOLDEN) as golden:
        assert sorted(golden) == sorted(found)
        for name, array in found.items():
            np.testing.assert_allclose(array, golden[name], atol=1e-4, err_msg=name)
