import shutil

import numpy as np
import pytest
import soundfile

from qbhkit.contour import midi_to_hz
from qbhkit.corpora.folders import HumRecording
from qbhkit.errors import QbhError
from qbhkit.pitch.trackers import get_tracker
from qbhkit.synthesis.mixing import MIX_RATE_HZ
from qbhkit.synthesis.singer import Voice, render_hum
from qbhkit.synthesis.voices import labelled_f0, recorded_voices, spoken_timbres

NOTES = np.array([[0.5 * k, 0.5, 57 + 2 * k] for k in range(4)])


class TestLabelledF0:
    def test_pitch_is_drawn_in_lines_between_labels(self):
        labels = 60 + 0.1 * np.arange(20)
        found = labelled_f0(labels, 64)
        at_s = (np.arange(64) + 0.5) * 0.01
        wanted = 60 + 0.1 * (at_s / 0.032 - 0.5)
        inside = (wanted >= 60) & (wanted <= labels[-1])
        np.testing.assert_allclose(found[inside], midi_to_hz(wanted[inside]), rtol=1e-5)

    @pytest.mark.parametrize(("rest", "leap"), [(0, 3), (1, -7), (5, 12), (0, -7)])
    def test_there_is_no_glide_across_a_rest_or_a_leap(self, rest, leap):
        labels = np.concatenate([np.full(10, 60.0), np.zeros(rest), np.full(10, 60.0 + leap)])
        found = labelled_f0(labels, round(3.2 * len(labels)))
        allowed = midi_to_hz(np.array([60.0, 60.0 + leap]))
        off = np.abs(found[found > 0][:, None] / allowed - 1).min(axis=1)
        assert off.max() < 1e-5
        assert (found == 0).sum() == pytest.approx(3.2 * rest, abs=1)

    def test_a_label_without_a_voice_is_unvoiced(self):
        for labels in (np.zeros(10), np.zeros(0)):
            found = labelled_f0(labels, 32)
            assert found.shape == (32,)
            assert not found.any()


def write_hum(path, voice, seed=0):
    """Write an 8-bit recording with its label, as MIR-QBSH has them; return its length."""
    hum = render_hum(NOTES, voice, np.random.default_rng(seed))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, hum.audio.samples[::2], MIX_RATE_HZ, subtype="PCM_U8")
    at = (np.arange(int(hum.audio.duration_s / 0.032)) * 3.2 + 1.6).astype(int)
    sung = hum.f0.voiced[at]
    label = np.where(sung, 69 + 12 * np.log2(np.maximum(hum.f0.frequency_hz[at], 1) / 440), 0)
    path.with_suffix(".pv").write_text("\n".join(f"{value:.3f}" for value in label))
    return hum


def test_recorded_voices_have_their_label_and_a_timbre_if_they_have_syllables(tmp_path):
    hum = write_hum(tmp_path / "a.wav", Voice("vowels", gap=0.3))
    label = np.loadtxt(tmp_path / "a.pv")
    hums = [
        HumRecording(tmp_path / "a.wav", "00001", "one", label),
        HumRecording(tmp_path / "a.wav", "00001", "two", None),
        HumRecording(tmp_path / "long.wav", "00001", "one", np.full(50, 57.0)),
    ]
    long = render_hum(np.array([[0, 1.5, 57.0]]), Voice("vowels"), np.random.default_rng(0))
    soundfile.write(tmp_path / "long.wav", long.audio.samples, 16000)
    voice, one_note = recorded_voices(hums, get_tracker().track)  # without a label it is skipped
    assert one_note.timbre is None
    assert len(voice.f0) == round(len(voice.samples) / 80)
    np.testing.assert_array_equal(voice.f0 > 0, labelled_f0(label, len(voice.f0)) > 0)
    both = (voice.f0 > 0) & hum.f0.voiced
    cents = 1200 * np.log2(voice.f0[both] / hum.f0.frequency_hz[both])
    assert np.median(np.abs(cents)) < 30
    assert len(voice.timbre.syllables) >= 3


class TestSpeech:
    def test_a_synthesiser_lends_its_syllables(self):
        if shutil.which("flite") is None:
            pytest.skip("the speech synthesiser flite is not installed")
        titles = ["The Silver Spear", "O'Carolan 4th", "Morning Dew", "Lady Gordon's Minuet"]
        one, again, other = (
            spoken_timbres(["slt"], titles, 1, get_tracker().track, seed) for seed in (0, 0, 1)
        )
        assert len(one) == len(again) == 1
        assert len(one[0].syllables) >= 3
        np.testing.assert_array_equal(one[0].f0_hz, again[0].f0_hz)
        assert not np.array_equal(one[0].f0_hz, other[0].f0_hz)
        voiced = one[0].f0_hz > 0
        assert 100 < np.median(one[0].f0_hz[voiced]) < 300  # a woman's voice
        begins, vowels = one[0].syllables[:, 0], one[0].syllables[:, 1]
        assert (vowels - begins).max() > 2  # there are consonants

    def test_without_flite_it_says_what_to_do(self, monkeypatch):
        monkeypatch.setenv("PATH", "")
        assert spoken_timbres([], ["A Title"], 3, get_tracker().track, 0) == []
        with pytest.raises(QbhError, match=r"apt-get install flite, or write 'speech: \[\]'"):
            spoken_timbres(["slt"], ["A Title"], 1, get_tracker().track, 0)

    def test_what_flite_cannot_speak_is_named(self, monkeypatch, tmp_path):
        program = tmp_path / "flite"
        program.write_text(
            "#!/bin/sh\n[ $1 = -lv ] && echo slt && exit\necho no sound >&2\nexit 1\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        with pytest.raises(QbhError, match="cannot speak with the voice nobody"):
            spoken_timbres(["nobody"], ["A Title"], 1, get_tracker().track, 0)
        with pytest.raises(QbhError, match=r"flite failed \(no sound\)"):
            spoken_timbres(["slt"], ["A Title"], 1, get_tracker().track, 0)
