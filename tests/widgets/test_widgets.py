"""The recorder widget without a browser: what it tracks, finds, refuses and sends."""

import io
import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

import qbhkit
from qbhkit.audio import Audio, load, write_wav
from qbhkit.catalogue.read import open_catalogue
from qbhkit.contour import from_f0
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.pitch.trackers import get_tracker
from qbhkit.retrieval.searcher import Searcher
from qbhkit.storage import asset
from qbhkit.synthesis.singer import Voice, render_hum
from qbhkit.widgets import HumRecorder, recorder

TRUTH = "00004"
RATE_HZ = 16000


@pytest.fixture(scope="module")
def searcher(catalogue, embedder) -> Searcher:
    return Searcher(open_catalogue(catalogue), embedder)


@pytest.fixture
def widget(searcher) -> HumRecorder:
    return HumRecorder(searcher, k=3)


@pytest.fixture
def sent(widget, monkeypatch) -> list:
    """What the widget sends to its views: (message, buffers)."""
    messages = []
    monkeypatch.setattr(widget, "send", lambda *message: messages.append(message))
    return messages


def receive(widget, *buffers, **content):
    """What a view would send."""
    widget._receive(widget, content, [memoryview(buffer) for buffer in buffers])


def upload(widget, name, body, rate_hz=0, size=38_400):
    receive(widget, type="begin", name=name, rate_hz=rate_hz)
    for at in range(0, len(body), size):
        receive(widget, body[at : at + size], type="piece")
    receive(widget, type="end", bytes=len(body))


def record(widget, audio, **size):
    upload(widget, None, audio.samples.astype("<f4").tobytes(), audio.rate_hz, **size)


def test_a_hum_is_tracked_its_song_found_and_drawn(searcher, widget, sung):
    widget.hear(sung)
    assert widget.contour.voiced_s > 5
    assert widget.results[0].song_id == TRUTH
    assert len(widget.results) == 3
    assert widget.status.startswith(f"It fits {TRUTH} best.")
    assert not widget.problem
    row, answer = widget._songs[0], widget.results[0]
    assert (row["title"], row["start_s"], row["end_s"]) == (TRUTH, answer.start_s, answer.end_s)
    song = searcher.catalogue.contours[searcher.catalogue.number[TRUTH]]
    aligned = [(round((at - row["first_s"]) / 0.1), st) for at, st in row["hum"] if st is not None]
    tune = row["song"]
    apart = [abs(tune[frame] - st) for frame, st in aligned if tune[frame] is not None]
    assert np.median(apart) < 0.5
    assert row["first_s"] + 0.1 * len(row["song"]) <= song.duration_s + 1e-6
    json.dumps(widget.get_state())


def test_a_catalogue_s_folder_will_do_and_two_recorders_are_independent(catalogue, widget, sung):
    other = HumRecorder(str(catalogue), k=3)
    widget.hear(sung)
    other.hear(sung)
    assert widget.results == other.results
    with pytest.raises(QbhError, match="too quiet"):
        other.hear(Audio(0 * sung.samples, RATE_HZ))
    assert widget.results
    assert not widget.problem
    with pytest.raises(QbhError, match="does not exist"):
        HumRecorder(Path(catalogue / "none"))


def test_where_the_match_begins_is_passed_on(searcher, song_notes):
    notes = song_notes[TRUTH][20:44]  # not the song's first ones
    audio = render_hum(notes, Voice(), np.random.default_rng(0)).audio
    found = {}
    for match_from in ("anywhere", "start"):
        widget = HumRecorder(searcher, match_from=match_from, k=1000)
        widget.hear(audio)
        found[match_from] = {answer.song_id: answer for answer in widget.results}[TRUTH]
    assert found["start"].start_s == pytest.approx(song_notes[TRUTH][0, 0], abs=0.11)
    assert found["anywhere"].start_s > 1


def test_another_tracker_is_used_and_without_a_searcher_there_is_a_contour(sung):
    tracker = get_tracker("praat")
    widget = HumRecorder(tracker=tracker)
    widget.hear(sung)
    np.testing.assert_array_equal(widget.contour.frames, from_f0(tracker.track(sung)).frames)
    assert (widget.results, widget.status, widget.problem) == ((), "Pitch tracked.", False)


def test_weights_that_read_states_get_them(hummed_songs, tmp_path):
    qbhkit.build_catalogue(hummed_songs, out=tmp_path, embedder="stage1", progress=False)
    widget = HumRecorder(qbhkit.open_searcher(tmp_path, weights="end-to-end"))
    widget.hear_file(asset("hums/demo_1.flac"))
    widget.trim(0, 8)
    assert widget.results[0].song_id == hummed_songs[-1].id
    assert widget._songs[0]["hum"]


def test_what_is_wrong_is_said(widget, sent, sung):
    noise = np.random.default_rng(0).standard_normal(len(sung.samples))
    widget.hear(sung)
    for samples, words in (
        (0.003 * sung.samples, "too quiet"),
        (sung.samples[:0], "too short"),
        (0.1 * noise, "No voice was found"),
        (np.pad(sung.samples[: RATE_HZ // 2], (0, 2 * RATE_HZ)), "Only 0."),
        (np.nan * sung.samples, "NaN"),
    ):
        bad = Audio(samples.astype(np.float32), RATE_HZ)
        with pytest.raises(QbhError, match=words):
            widget.hear(bad)
        assert words in widget.status
        assert widget.problem
        assert (list(widget.results), widget._songs) == ([], [])
    record(widget, Audio(sung.samples[:RATE_HZ], RATE_HZ))
    assert "too short" in widget.status
    receive(widget, type="begin", name=None, rate_hz=RATE_HZ)
    receive(widget, sung.samples.tobytes(), type="piece")
    receive(widget, type="end", bytes=sung.samples.nbytes + 4)
    assert "was lost on its way" in widget.status
    assert widget.audio is None
    widget.hear(sung)
    assert not widget.problem
    receive(widget, type="say", words="No microphone was found.", problem=True)
    assert (widget.status, widget.problem) == ("No microphone was found.", True)


def test_a_clipped_hum_is_searched_all_the_same(widget, sung):
    widget.hear(Audio(np.clip(8 * sung.samples / np.abs(sung.samples).max(), -1, 1), RATE_HZ))
    assert widget.status.startswith("The recording is clipped")
    assert widget.problem
    assert widget.results[0].song_id == TRUTH


@pytest.mark.parametrize("peak", [0.011, 1.0])
def test_a_soft_hum_is_not_too_quiet_and_a_loud_one_not_clipped(sung, peak):
    widget = HumRecorder()
    widget.hear(Audio(peak * sung.samples / np.abs(sung.samples).max(), RATE_HZ))
    assert (widget.status, widget.problem) == ("Pitch tracked.", False)


def test_files_are_searched_and_named_as_the_view_does(widget, sung, tmp_path):
    write_wav(sung, tmp_path / "hum.wav")
    widget.hear_file(tmp_path / "hum.wav")
    assert widget.results[0].song_id == TRUTH
    with pytest.raises(QbhError, match="does not exist"):
        widget.hear_file(tmp_path / "missing.wav")
    assert (widget.audio, widget.contour, list(widget.results)) == (None, None, [])
    upload(widget, "my hum.flac", asset("hums/demo_1.flac").read_bytes())
    assert widget.contour.voiced_s > 5
    upload(widget, "../words.wav", b"this is no recording\n" * 50)
    assert widget.status.startswith("../words.wav is damaged")
    write_wav(Audio(np.zeros(61 * 8000), 8000), tmp_path / "a.wav")
    upload(widget, "long.wav", (tmp_path / "a.wav").read_bytes())
    assert widget.status == "long.wav is longer than 60 s: cut out the part that matters."


def test_what_a_view_records_is_drawn_live_and_arrives_whole(widget, sent, sung):
    record(widget, sung)
    np.testing.assert_array_equal(widget.audio.samples, sung.samples[: len(widget.audio.samples)])
    drawn = {}
    for message, *_ in sent:
        drawn |= dict(enumerate(message["pitch"], message["first"]))
    both = [(st, widget._line[i]) for i, st in drawn.items() if st and widget._line[i]]
    assert len(both) > 20
    assert np.mean([abs(live - final) < 0.5 for live, final in both]) > 0.9


def test_a_slow_tracker_draws_seldom(sung, widget, sent, monkeypatch):
    now_s = iter(np.arange(10000.0))  # a second passes between two looks at the clock
    monkeypatch.setattr(recorder, "perf_counter", lambda: next(now_s))
    record(widget, sung, size=6400)
    assert 1 <= len(sent) <= sung.duration_s + 1


def test_a_trimmed_hum_is_searched_again_and_saved(widget, sung, tmp_path):
    widget.hear(sung)
    whole = widget.audio
    widget.trim(1.04, 6.0)
    assert widget.audio.duration_s == pytest.approx(5.0)
    np.testing.assert_array_equal(widget.audio.samples, whole.samples[RATE_HZ : 6 * RATE_HZ])
    assert widget._kept_s == [1.0, 6.0]
    assert widget.results[0].song_id == TRUTH
    receive(widget, type="trim", start_s=2.0, end_s=99.0)
    assert widget._kept_s == [2.0, pytest.approx(whole.duration_s, abs=0.1)]
    for part in ((1, 2), (0, -3)):
        with pytest.raises(QbhError, match="too short"):
            widget.trim(*part)
    assert widget._kept_s[0] == 2.0
    widget.trim()
    widget.save(tmp_path / "hum.wav")
    np.testing.assert_allclose(load(tmp_path / "hum.wav").samples, sung.samples, atol=1e-4)
    with pytest.raises(QbhError, match=r"\.wav or \.flac"):
        widget.save(tmp_path / "hum.doc")


def test_nothing_to_trim_save_or_play_yet(widget, sent, tmp_path):
    for doing in (widget.trim, lambda: widget.save(tmp_path / "hum.wav"), widget.matched):
        with pytest.raises(QbhError, match="There is no"):
            doing()
    receive(widget, type="sound", rank=None, ticket="1")
    assert sent == []


def test_sounds_are_sent_when_asked_for_and_never_kept_in_the_state(widget, sent, sung):
    widget.hear(sung)
    for rank in (None, 0):
        receive(widget, type="sound", rank=rank, ticket="7")
        message, (wav,) = sent[-1]
        assert message == {"type": "sound", "ticket": "7"}
        samples, rate_hz = soundfile.read(io.BytesIO(wav))
        expected = widget.audio if rank is None else widget.matched(rank)
        assert rate_hz == RATE_HZ
        np.testing.assert_allclose(samples, expected.samples, atol=1e-4)
    values = widget.get_state().values()
    assert not any(isinstance(value, bytes | memoryview) for value in values)


def test_callbacks(widget, sung):
    called = []
    widget.on_heard(called.append)
    widget.hear(sung)
    widget.trim(0, 6)
    with pytest.raises(QbhError):
        widget.hear(Audio(sung.samples[:100], RATE_HZ))
    widget.on_heard(called.append, remove=True)
    widget.hear(sung)
    assert called == [widget, widget]


def device(samples):
    """A sounddevice whose microphone gets a hum, or which has no microphone."""

    def rec(count, rate_hz, channels, dtype):
        if samples is None:
            raise RuntimeError("Error querying device -1")
        return samples[:count, None]

    return SimpleNamespace(rec=rec, wait=lambda: None, PortAudioError=RuntimeError)


def test_the_kernels_machine_records(widget, sung, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", device(sung.samples))
    widget.record_here(6)
    assert widget.audio.duration_s == pytest.approx(6)
    brief = HumRecorder(longest_s=5)
    receive(brief, type="record_here")
    assert brief.audio.duration_s == pytest.approx(5)
    monkeypatch.setitem(sys.modules, "sounddevice", device(None))
    with pytest.raises(QbhError, match="cannot record"):
        widget.record_here()
    with pytest.raises(QbhError, match="2 to 30 s"):
        widget.record_here(31)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingPackageError, match="pip install sounddevice"):
        widget.record_here()
    assert "pip install sounddevice" in widget.status


def test_what_is_missing_is_named():
    code = "import sys; sys.modules['anywidget'] = None; import qbhkit.widgets"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'qbhkit[notebooks]'" in done.stderr


def test_wrong_arguments(searcher):
    for wrong in ({"k": 0}, {"longest_s": 1.0}, {"longest_s": 61.0}):
        with pytest.raises(QbhError, match=next(iter(wrong))):
            HumRecorder(searcher, **wrong)


def test_the_page_and_the_widget_share_one_recorder(widget):
    page = files("qbhkit.service") / "page"
    assert widget._core == (page / "recorder.js").read_text("utf-8")
    assert 'from "./recorder.js"' in (page / "page.js").read_text("utf-8")
