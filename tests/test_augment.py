import numpy as np
import pytest

from qbhkit.contour import normalise
from qbhkit.embedding.augment import Distortions, distort, warp_positions

OFF = Distortions(
    start_shift=0, tempo_octaves=0, slice_tempo=0, key_st=0, range_chance=0, offset_chance=0,
    drift_chance=0, note_chance=0, wrong_note=0, octave_chance=0, jitter_st=0, absurd_chance=0,
    smooth_chance=0, crop_chance=0, dropout_chance=0, fill_chance=0, staccato_chance=0,
)  # fmt: skip


def melody(batch=64, notes=10, frames=8, seed=0):
    """(B, L, 2): notes of 8 frames, of which the last is a pause."""
    rng = np.random.default_rng(seed)
    pitch = np.repeat(rng.integers(55, 75, (batch, notes)), frames, axis=1).astype(np.float32)
    voiced = np.tile(np.arange(frames) < frames - 1, (batch, notes))
    return np.stack([np.where(voiced, pitch, 0), voiced], axis=-1).astype(np.float32)


def only(**rules):
    from dataclasses import replace

    return replace(OFF, **rules)


def changed_pitch(rules, seed=1):
    frames = melody()
    out = distort(frames, rules, np.random.default_rng(seed))
    both = (out[..., 1] > 0) & (frames[..., 1] > 0)
    return frames, out, np.where(both, out[..., 0] - frames[..., 0], np.nan)


def test_everything_off_changes_nothing():
    frames = melody()
    np.testing.assert_array_equal(distort(frames, OFF, np.random.default_rng(0)), frames)


def test_same_generator_state_gives_the_same_batch_and_another_does_not():
    frames = melody()
    one, two, three = (
        distort(frames, Distortions(), np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()


def test_the_input_is_left_alone_and_the_output_is_a_contour():
    frames = melody()
    before = frames.copy()
    out = distort(frames, Distortions(), np.random.default_rng(0))
    np.testing.assert_array_equal(frames, before)
    assert out.dtype == np.float32
    assert np.isfinite(out).all()
    assert set(np.unique(out[..., 1])) <= {0.0, 1.0}
    assert not out[out[..., 1] == 0, 0].any()
    assert (out[..., 1].sum(axis=1) > 0).all()


def test_a_key_change_moves_every_frame_of_a_contour_alike():
    frames, out, moved = changed_pitch(only(key_st=6.0))
    shift = np.nanmean(moved, axis=1)
    np.testing.assert_allclose(
        moved - shift[:, None], np.where(np.isnan(moved), np.nan, 0), atol=1e-4
    )
    assert np.abs(shift).max() <= 6.0
    assert np.ptp(shift) > 6.0
    np.testing.assert_allclose(normalise(out, "key"), normalise(frames, "key"), atol=1e-5)


def test_drift_grows_evenly_from_the_first_frame_to_the_last():
    _, _, moved = changed_pitch(only(drift_chance=1.0, drift_st=1.0))
    steps = np.nanmax(moved, axis=1) - np.nanmin(moved, axis=1)
    assert steps.max() <= 1.0
    assert steps.mean() > 0.3
    np.testing.assert_allclose(moved[:, 0], 0, atol=1e-5)
    slope = np.diff(moved[:, :7], axis=1)
    np.testing.assert_allclose(slope, np.repeat(slope[:, :1], 6, axis=1), atol=1e-4)


def test_range_scaling_stretches_around_the_median():
    frames, out, _ = changed_pitch(only(range_chance=1.0, range_scale=0.15))
    voiced = frames[..., 1] > 0
    ratio = [
        np.ptp(after[on]) / np.ptp(before[on])
        for before, after, on in zip(frames[..., 0], out[..., 0], voiced, strict=True)
    ]
    assert min(ratio) > 0.849
    assert max(ratio) < 1.151
    assert np.std(ratio) > 0.05


def test_note_errors_are_constant_within_a_note():
    _, _, moved = changed_pitch(only(note_chance=1.0, note_st=0.5))
    notes = moved.reshape(64, 10, 8)[:, :, :7]
    assert np.ptp(notes, axis=2).max() < 1e-4
    assert np.std(notes[:, :, 0], axis=1).mean() > 0.1


def test_wrong_notes_are_whole_steps_and_as_rare_as_asked():
    _, _, moved = changed_pitch(only(wrong_note=0.1))
    first = moved[:, ::8]
    wrong = np.abs(first) > 0.5
    np.testing.assert_allclose(first, np.round(first), atol=1e-4)
    assert 0.05 < wrong.mean() < 0.16


def test_slices_get_their_own_offset():
    _, _, moved = changed_pitch(only(offset_chance=1.0, offset_st=1.0))
    levels = [len(np.unique(np.round(row[~np.isnan(row)], 3))) for row in moved]
    assert max(levels) <= 7
    assert np.mean(levels) > 2


def test_octave_errors_jump_by_twelve():
    _, _, moved = changed_pitch(only(octave_chance=1.0))
    jumps = np.unique(np.round(moved[~np.isnan(moved)], 3))
    assert set(jumps) <= {-12.0, 0.0, 12.0}
    assert (np.abs(moved) > 11).any(axis=1).mean() > 0.4


def test_filling_sings_through_pauses_with_the_note_before():
    frames, out, _ = changed_pitch(only(fill_chance=1.0))
    assert (out[:, :79, 1] == 1).all()
    assert (out[:, 79, 1] == 0).all()  # silence after the last note stays
    np.testing.assert_array_equal(out[:, 7, 0], frames[:, 6, 0])


def test_staccato_cuts_the_end_of_notes_only():
    frames, out, _ = changed_pitch(only(staccato_chance=1.0, staccato_share=1.0))
    lost = (frames[..., 1] > 0) & (out[..., 1] == 0)
    assert lost.any()
    assert not lost.reshape(64, 10, 8)[:, :, :6].any()


def test_crop_and_dropout_take_what_they_say():
    frames, out, _ = changed_pitch(only(crop_chance=1.0, crop_share=0.5))
    kept = out[..., 1].sum(axis=1) / frames[..., 1].sum(axis=1)
    assert 0.45 < kept.min() < 0.8
    inner = out[..., 1].astype(bool)
    first, last = inner.argmax(axis=1), 79 - inner[:, ::-1].argmax(axis=1)
    for row, a, b in zip(range(64), first, last, strict=True):
        np.testing.assert_array_equal(out[row, a : b + 1], frames[row, a : b + 1])
    _, out, _ = changed_pitch(only(dropout_chance=1.0, dropout_share=0.3))
    gaps = (frames[..., 1] > 0) & (out[..., 1] == 0)
    assert gaps.any()
    assert gaps.sum(axis=1).max() <= 0.3 * 80 + 1


def test_smoothing_glides_between_notes_without_inventing_voice():
    frames, out, moved = changed_pitch(only(smooth_chance=1.0))
    np.testing.assert_array_equal(out[..., 1], frames[..., 1])
    middle = np.abs(moved.reshape(64, 10, 8)[:, :, 3])
    edge = np.abs(moved.reshape(64, 10, 8)[:, 1:, 0])
    assert middle.max() < 0.05
    assert edge.mean() > 0.2


def test_absurd_noise_hits_few_frames_far_off():
    _, _, moved = changed_pitch(only(absurd_chance=1.0, absurd_share=0.1))
    hit = np.abs(moved) > 1e-4
    assert 0.02 < hit.mean() < 0.08
    assert np.abs(moved[hit]).max() > 8


def test_warped_positions_without_rules_are_the_plain_grid():
    start, length = np.array([0.0, 30.0]), np.array([40.0, 80.0])
    grid = warp_positions(start, length, 80, OFF, np.random.default_rng(0))
    np.testing.assert_allclose(grid[0], (np.arange(80) + 0.5) / 2)
    np.testing.assert_allclose(grid[1], 30 + np.arange(80) + 0.5)


def test_warped_positions_rise_and_keep_within_the_rules():
    start, length = np.full(500, 100.0), np.full(500, 80.0)
    rules = only(start_shift=0.1, tempo_octaves=0.25, slice_tempo=0.25)
    grid = warp_positions(start, length, 80, rules, np.random.default_rng(0))
    assert (np.diff(grid, axis=1) > 0).all()
    span = grid[:, -1] - grid[:, 0]
    assert span.min() > 79 * 2**-0.25 * 0.97
    assert span.max() < 79 * 2**0.25 * 1.03
    assert np.abs(grid[:, 0] - 100).max() < 8 + 1
    pace = np.diff(grid, axis=1)
    assert (pace.max(axis=1) / pace.min(axis=1)).max() <= 2**0.5 + 1e-6
    assert (pace.max(axis=1) / pace.min(axis=1)).mean() > 1.15


@pytest.mark.parametrize("steps", [1, 7, 200])
def test_any_length_works(steps):
    frames = melody(notes=25)[:, :steps]
    out = distort(np.ascontiguousarray(frames), Distortions(), np.random.default_rng(0))
    assert out.shape == frames.shape
