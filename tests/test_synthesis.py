import numpy as np
import pytest

from qbhkit.contour import hz_to_midi
from qbhkit.melody.synthesis import RATE_HZ, Voice, render_hum
from qbhkit.melody.trackers import get_tracker

# onset s, duration s, MIDI pitch
NOTES = np.array([[0.0, 0.5, 60], [0.5, 0.5, 64], [1.0, 1.0, 67], [2.0, 0.5, 62], [2.5, 1.0, 59]])
EXACT = Voice(
    note_error_st=0, timing_error=0, vibrato_st=0, jitter_st=0, glide_s=0.01, breath=0.01, gap=0.1
)


def median_midi(track):
    return float(np.median(hz_to_midi(track.frequency_hz[track.voiced])))


def hum(voice=EXACT, seed=0, notes=NOTES):
    return render_hum(notes, voice, np.random.default_rng(seed))


def voiced_span_s(track):
    frames = np.flatnonzero(track.voiced)
    return float((frames[-1] + 1 - frames[0]) * track.hop_s)


def test_the_same_seed_gives_the_same_samples():
    first, again, other = hum(Voice(), 3), hum(Voice(), 3), hum(Voice(), 4)
    np.testing.assert_array_equal(first.audio.samples, again.audio.samples)
    np.testing.assert_array_equal(first.f0.frequency_hz, again.f0.frequency_hz)
    assert len(first.audio.samples) != len(other.audio.samples) or not np.array_equal(
        first.audio.samples, other.audio.samples
    )


@pytest.mark.parametrize("voice", [Voice(), EXACT, Voice(breath=0.3)])
def test_samples_peak_at_one_half(voice):
    audio = hum(voice).audio
    assert audio.rate_hz == RATE_HZ == 16000
    assert audio.samples.dtype == np.float32
    assert np.abs(audio.samples).max() == pytest.approx(0.5, abs=1e-6)
    assert abs(audio.samples.mean()) < 0.01


def test_audio_and_f0_are_equally_long():
    sung = hum(Voice(), 5)
    assert len(sung.audio.samples) == len(sung.f0.frequency_hz) * 160
    assert sung.f0.hop_s == 0.01


def test_an_exact_voice_sings_what_is_written():
    track = hum(Voice(**{**vars(EXACT), "gap": 0.3})).f0
    midi = hz_to_midi(np.where(track.voiced, track.frequency_hz, 440.0))
    for onset, duration, pitch in NOTES:
        middle = round((0.2 + onset + 0.3 * duration) / 0.01)
        assert track.voiced[middle]
        assert midi[middle] == pytest.approx(pitch, abs=0.01)
    ends = np.round((0.2 + NOTES[:, 0] + 0.85 * NOTES[:, 1]) / 0.01).astype(int)
    assert not track.voiced[ends[:-1]].any()  # in the middle of the gap at the end of each note
    assert not track.voiced[:15].any()


def test_the_key_moves_every_frame():
    plain, moved = hum().f0, hum(Voice(**{**vars(EXACT), "key_st": 7.0})).f0
    np.testing.assert_array_equal(plain.voiced, moved.voiced)
    at = plain.voiced
    steps = hz_to_midi(moved.frequency_hz[at]) - hz_to_midi(plain.frequency_hz[at])
    np.testing.assert_allclose(steps, 7.0, atol=1e-3)
    assert median_midi(moved) - median_midi(plain) == pytest.approx(7.0, abs=1e-3)


@pytest.mark.parametrize("tempo", [0.8, 1.25, 2.0])
def test_the_tempo_divides_the_length(tempo):
    plain, fast = hum().f0, hum(Voice(**{**vars(EXACT), "tempo": tempo})).f0
    # from the first onset to the end of the last note, and 30 ms of fading at both ends
    assert voiced_span_s(plain) == pytest.approx(3.4 + 0.06, abs=0.02)
    assert voiced_span_s(fast) == pytest.approx(3.4 / tempo + 0.06, abs=0.02)
    assert median_midi(fast) == pytest.approx(median_midi(plain), abs=0.1)


def test_errors_are_as_large_as_said():
    notes = np.array([[0.4 * k, 0.4, 60] for k in range(120)])
    track = hum(Voice(**{**vars(EXACT), "note_error_st": 0.5}), 1, notes).f0
    middles = np.round((0.2 + notes[:, 0] + 0.2) / 0.01).astype(int)
    errors = hz_to_midi(track.frequency_hz[middles]) - 60
    assert errors.std() == pytest.approx(0.5, abs=0.1)
    assert abs(errors.mean()) < 0.15


def test_the_exact_f0_agrees_with_a_tracker():
    sung = hum(Voice(), 7)
    heard = get_tracker("swift-f0").track(sung.audio)
    assert len(heard.frequency_hz) == len(sung.f0.frequency_hz)
    both = heard.voiced & sung.f0.voiced
    assert both.sum() > 0.8 * sung.f0.voiced.sum()
    cents = 1200 * np.log2(heard.frequency_hz[both] / sung.f0.frequency_hz[both])
    assert np.median(np.abs(cents)) < 15
    assert np.mean(np.abs(cents) < 50) > 0.95


def test_one_note_is_a_hum():
    sung = hum(notes=np.array([[0.0, 1.0, 57]]))
    assert median_midi(sung.f0) == pytest.approx(57, abs=0.01)
    assert sung.audio.duration_s == pytest.approx(1.2, abs=0.02)


def test_a_rest_between_notes_is_silent():
    notes = np.array([[0.0, 0.5, 60], [1.5, 0.5, 62]])
    sung = hum(notes=notes)
    assert not sung.f0.voiced[75:165].any()
    pause = sung.audio.samples[16000 * 8 // 10 : 16000 * 16 // 10]
    assert np.abs(pause).max() < 0.02
