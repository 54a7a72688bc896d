import warnings

import numpy as np
import pytest
import soundfile

from qbhkit.errors import QbhError
from qbhkit.pitch import self_training as module
from qbhkit.pitch import training
from qbhkit.pitch.crnn_lite import LiteConfig
from qbhkit.pitch.self_training import draw_labelled, label_recordings
from qbhkit.pitch.training import MelodyTrainConfig
from qbhkit.synthesis.mixing import MIX_HOP, MixConfig
from qbhkit.synthesis.singer import Voice, render_hum

NOTES = np.array([[0.5 * k, 0.5, 57 + (2 * k) % 9] for k in range(36)])  # 18 s: two segments


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def hum():
    return render_hum(NOTES, Voice("vowels", gap=0.2, timing_error=0), rng())


@pytest.fixture(scope="module")
def folder(hum, tmp_path_factory):
    """A sung recording in a folder of its own, a noise, a short one, and two that are no audio."""
    path = tmp_path_factory.mktemp("recordings")
    (path / "mine").mkdir()
    soundfile.write(path / "mine" / "song.wav", hum.audio.samples, hum.audio.rate_hz)
    soundfile.write(path / "noise.wav", rng().normal(0, 0.1, 160_000), 16000)
    soundfile.write(path / "short.flac", hum.audio.samples[:32000], hum.audio.rate_hz)
    (path / "damaged.wav").write_bytes(b"RIFF rubbish")
    (path / "notes.txt").write_text("no recording")
    return path


@pytest.fixture(scope="module")
def labelled(folder, tmp_path_factory):
    """The cache, and the segments of the shipped weights."""
    cache = tmp_path_factory.mktemp("labels")
    with pytest.warns(UserWarning, match=r"left out: .*damaged\.wav") as caught:
        segments = label_recordings(folder, "crnn-lite", cache, progress=False)
    assert len(caught) == 1
    return cache, segments


class TestLabels:
    def test_sure_segments_of_a_voice_are_kept_at_their_pitch(self, labelled, hum):
        _, segments = labelled
        assert [number for _, number in segments] == [0, 1]  # and none of the noise
        for path, number in segments:
            found = draw_labelled([module.Segment(path, number)], 0.0, 0.0, rng())
            assert found.samples.shape == (800 * MIX_HOP,)
            truth = hum.f0.frequency_hz[800 * number : 800 * (number + 1)]
            both = (found.f0 > 0) & (truth > 0) & (found.weight > 0)
            assert both.sum() > 300
            apart = 1200 * np.log2(found.f0[both] / truth[both])
            assert np.mean(np.abs(apart) < 50) > 0.9

    def test_frames_of_which_the_teacher_is_not_sure_do_not_count(self, labelled):
        path, number = labelled[1][0]
        weight = draw_labelled([module.Segment(path, number)], 0.0, 0.0, rng()).weight
        assert ((weight == 0) | (weight >= 0.7)).all()
        assert 0.8 <= np.mean(weight > 0) < 1

    def test_a_second_run_reads_the_labels(self, labelled, folder, monkeypatch):
        cache, segments = labelled
        (folder / "damaged.wav").rename(folder / "damaged.txt")
        monkeypatch.setattr(module, "_labelled", None)  # nothing is tracked again
        with warnings.catch_warnings(action="error"):
            assert label_recordings(folder, "crnn-lite", cache, progress=False) == segments
        (folder / "damaged.txt").rename(folder / "damaged.wav")

    def test_a_folder_without_recordings_or_melodies_is_refused(self, tmp_path):
        with pytest.raises(QbhError, match="holds no recordings: name another folder"):
            label_recordings(tmp_path, "crnn-lite", tmp_path, progress=False)
        soundfile.write(tmp_path / "noise.wav", rng().normal(0, 0.1, 80_000), 8000)
        with pytest.raises(QbhError, match="holds no melody of which crnn-lite is sure"):
            label_recordings(tmp_path, "crnn-lite", tmp_path / "labels", progress=False)


def test_what_is_drawn_is_degraded_and_keeps_its_labels(labelled):
    clean = draw_labelled(labelled[1], 0.0, 0.0, rng())
    for degraded, produced in ((1.0, 0.0), (0.0, 1.0)):
        found = draw_labelled(labelled[1], degraded, produced, rng())
        assert found.samples.dtype == np.float32
        assert not np.array_equal(found.samples, clean.samples)
        np.testing.assert_array_equal(found.f0, clean.f0)
        np.testing.assert_array_equal(found.weight, clean.weight)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_batches_hold_their_share_and_do_not_teach_unknown_leads(labelled, share, monkeypatch):
    config = MelodyTrainConfig(
        mix=MixConfig(split=0.5), network=LiteConfig(targets=("voice", "lead")), self_trained=share
    )
    f0 = np.zeros(800, np.float32)
    mixture = training.Mixture(np.zeros(64000, np.float32), f0, f0 + 440)
    monkeypatch.setattr(training, "draw_mixture", lambda *_: mixture)
    _, f0, weight = training._Mixtures([], [], config, 0, labelled[1])[0]
    assert f0.shape == weight.shape == (2, 800)
    if not share:
        np.testing.assert_array_equal(f0[:, 0], [0, 440])
        assert (weight == 1).all()
    else:
        np.testing.assert_array_equal(f0[0], f0[1])
        assert weight[0][f0[0] == 0].any()
        assert not weight[1][f0[1] == 0].any()
        np.testing.assert_array_equal(weight[0][f0[0] > 0], weight[1][f0[0] > 0])
