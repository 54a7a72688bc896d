import numpy as np
import pytest

from qbhkit.audio import Audio, write_wav
from qbhkit.contour import F0Track, from_f0
from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.embedder import ContourEmbedder, open_embedder
from qbhkit.errors import QbhError
from qbhkit.f0_csv import write_f0_csv
from qbhkit.pitch.crnn_lite import LiteExtractor
from qbhkit.pitch.frontends import PitchFrontend, StateFrontend, frontend_for, query_reader
from qbhkit.pitch.trackers import get_tracker


@pytest.fixture(scope="module")
def end_to_end():
    return StateEmbedder()


def tone(count, rate_hz):
    rng = np.random.default_rng(0)
    samples = 0.3 * np.sin(2 * np.pi * 220 * np.arange(count) / rate_hz)
    return Audio((samples + rng.normal(0, 0.01, count)).astype(np.float32), rate_hz)


def test_states_lie_beside_the_contour_of_the_same_run():
    listener, audio = LiteExtractor(), tone(12345, 8000)
    heard = StateFrontend(listener).hear(audio)
    np.testing.assert_array_equal(heard.frames[:, :2], from_f0(listener.track(audio)).frames)
    np.testing.assert_array_equal(heard.states, listener.states(audio)[: len(heard)])
    assert len(heard) == 16


def test_every_embedder_gets_the_ear_that_it_reads(end_to_end):
    frontend = frontend_for(ContourEmbedder(), "pyin")
    assert isinstance(frontend, PitchFrontend)
    assert frontend.tracker.name == "pyin"
    assert frontend.rate_hz == get_tracker("pyin").rate_hz
    for tracker in (None, "crnn-lite"):
        assert isinstance(frontend_for(end_to_end, tracker), StateFrontend)
    with pytest.raises(QbhError, match=r"heard by crnn-lite: leave --tracker pyin out"):
        frontend_for(end_to_end, "pyin")


def test_states_of_another_network_are_refused(end_to_end, monkeypatch):
    monkeypatch.setattr(end_to_end, "states_of", "crnn-lite@000000000000")
    with pytest.raises(QbhError, match=r"reads states of crnn-lite@0{12}, not .* train it"):
        frontend_for(end_to_end)


def test_weights_say_themselves_what_they_embed():
    assert isinstance(open_embedder("end-to-end"), StateEmbedder)
    assert isinstance(open_embedder("stage1"), ContourEmbedder)


def test_what_an_ear_says_names_the_recording(monkeypatch, tmp_path):
    def refuse(self, audio):
        raise QbhError("Nothing was heard: hum louder.")

    monkeypatch.setattr(PitchFrontend, "hear", refuse)
    write_wav(tone(16000, 16000), tmp_path / "a.wav")
    with pytest.raises(QbhError, match=r"a\.wav: Nothing was heard: hum louder\."):
        query_reader(ContourEmbedder())(tmp_path / "a.wav")


def test_an_f0_file_needs_no_ear_and_holds_no_states(end_to_end, tmp_path):
    track = F0Track(np.full(300, 220.0), np.ones(300))
    write_f0_csv(track, tmp_path / "a.f0.csv")
    read = query_reader(ContourEmbedder(), "no such tracker")
    np.testing.assert_array_equal(read(tmp_path / "a.f0.csv").frames, from_f0(track).frames)
    with pytest.raises(QbhError, match=r"a\.f0\.csv holds no sound"):
        query_reader(end_to_end)(tmp_path / "a.f0.csv")
