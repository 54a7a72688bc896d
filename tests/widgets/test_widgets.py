"""The recorder widget without a browser: what it tracks, finds, refuses and sends."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qbhkit.audio import Audio, load, write_wav
from qbhkit.catalogue.read import open_catalogue
from qbhkit.errors import MissingPackageError, QbhError
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
def hum(sung) -> Audio:
    return sung


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


def record(widget, audio, size=9600):
    receive(widget, type="begin", name=None, rate_hz=audio.rate_hz)
    samples = audio.samples.astype("<f4")
    for at in range(0, len(samples), size):
        receive(widget, samples[at : at + size].tobytes(), type="piece")
    receive(widget, type="end", bytes=samples.nbytes)


def upload(widget, name, body):
    receive(widget, type="begin", name=name, rate_hz=0)
    receive(widget, body, type="piece")
    receive(widget, type="end", bytes=len(body))


def test_a_hum_is_tracked_its_song_found_and_drawn(searcher, widget, hum):
    widget.hear(hum)
    assert widget.audio.rate_hz == RATE_HZ
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


def test_a_catalogue_s_folder_will_do(catalogue, searcher, hum):
    widget, other = HumRecorder(str(catalogue), k=3), HumRecorder(searcher, k=3)
    widget.hear(hum)
    other.hear(hum)
    assert widget.results == other.results
    with pytest.raises(QbhError, match="too quiet"):
        other.hear(Audio(0 * hum.samples, RATE_HZ))
    assert widget.results  # two recorders are independent
    assert not widget.problem
    with pytest.raises(QbhError, match="does not exist"):
        HumRecorder(Path(catalogue / "none"))


def test_where_the_match_begins_is_passed_on(searcher, song_notes):
    middle = song_notes[TRUTH][20:]  # not the song's first notes
    notes = middle[:24] - np.array([middle[0, 0], 0, 0])
    audio = render_hum(notes, Voice(), np.random.default_rng(0)).audio
    found = {}
    for match_from in ("anywhere", "start"):
        widget = HumRecorder(searcher, match_from=match_from, k=1000)
        widget.hear(audio)
        found[match_from] = {answer.song_id: answer for answer in widget.results}[TRUTH]
    assert found["start"].start_s == pytest.approx(song_notes[TRUTH][0, 0], abs=0.11)
    assert found["anywhere"].start_s > 1
    assert found["anywhere"].score > found["start"].score


def test_another_tracker_is_used_and_without_a_searcher_there_is_a_contour(hum):
    from qbhkit.pitch.trackers import get_tracker

    widget, by_default = HumRecorder(tracker=get_tracker("praat")), HumRecorder()
    for recorder_widget in (widget, by_default):
        recorder_widget.hear(hum)
        assert recorder_widget.contour.voiced_s > 4
        assert recorder_widget.results == ()
        assert (recorder_widget.status, recorder_widget.problem) == ("Pitch tracked.", False)
    assert not np.array_equal(widget.contour.frames, by_default.contour.frames)


def test_what_is_wrong_is_said(widget, sent, hum):
    noise = np.random.default_rng(0).standard_normal(len(hum.samples))
    widget.hear(hum)
    for samples, words in (
        (0.003 * hum.samples, "too quiet"),
        (hum.samples[:RATE_HZ], "too short"),
        (hum.samples[:0], "too short"),
        (0.1 * noise, "No voice was found"),
        (np.pad(hum.samples[: RATE_HZ // 2], (0, 2 * RATE_HZ)), "Only 0."),
        (np.nan * hum.samples, "NaN"),
    ):
        bad = Audio(samples.astype(np.float32), RATE_HZ)
        with pytest.raises(QbhError, match=words):
            widget.hear(bad)
        assert words in widget.status
        assert widget.problem
        assert (list(widget.results), widget._songs) == ([], [])
    record(widget, Audio(hum.samples[:RATE_HZ], RATE_HZ))
    assert "too short" in widget.status
    widget.hear(hum)
    assert not widget.problem


def test_a_clipped_hum_is_searched_all_the_same(widget, hum):
    widget.hear(Audio(np.clip(8 * hum.samples / np.abs(hum.samples).max(), -1, 1), RATE_HZ))
    assert widget.status.startswith("The recording is clipped")
    assert widget.problem
    assert widget.results[0].song_id == TRUTH


@pytest.mark.parametrize("peak", [0.011, 1.0])
def test_a_soft_hum_is_not_too_quiet_and_a_loud_one_not_clipped(hum, peak):
    widget = HumRecorder()
    widget.hear(Audio(peak * hum.samples / np.abs(hum.samples).max(), RATE_HZ))
    assert (widget.status, widget.problem) == ("Pitch tracked.", False)


def test_files_are_searched(widget, hum, tmp_path):
    write_wav(hum, tmp_path / "hum.wav")
    widget.hear_file(tmp_path / "hum.wav")
    assert widget.results[0].song_id == TRUTH
    (tmp_path / "words.wav").write_text("this is no recording\n" * 50)
    with pytest.raises(QbhError, match="not audio"):
        widget.hear_file(tmp_path / "words.wav")
    assert (widget.audio, widget.contour, list(widget.results)) == (None, None, [])
    with pytest.raises(QbhError, match="does not exist"):
        widget.hear_file(tmp_path / "missing.wav")


def test_errors_name_an_uploaded_file_as_the_view_does(widget, sent):
    upload(widget, "my hum.flac", asset("hums/demo_1.flac").read_bytes())
    assert widget.contour.voiced_s > 5
    upload(widget, "../words.wav", b"this is no recording\n" * 50)
    assert widget.status.startswith("../words.wav is damaged")
    upload(widget, "long.wav", _wav(np.zeros(61 * 8000), 8000))
    assert widget.status == "long.wav is longer than 60 s: cut out the part that matters."


def _wav(samples, rate_hz):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="WAV")
    return buffer.getvalue()


def test_what_a_view_says_is_known_here(widget):
    receive(widget, type="say", words="No microphone was found.", problem=True)
    assert (widget.status, widget.problem) == ("No microphone was found.", True)


def test_a_part_that_is_lost_is_missed(widget, sent, hum):
    receive(widget, type="begin", name=None, rate_hz=RATE_HZ)
    receive(widget, hum.samples.tobytes(), type="piece")
    receive(widget, type="end", bytes=hum.samples.nbytes + 4)
    assert "was lost on its way" in widget.status
    assert widget.audio is None


def test_what_a_view_records_is_drawn_live_and_arrives_whole(widget, sent, hum):
    record(widget, hum)
    np.testing.assert_array_equal(widget.audio.samples, hum.samples[: len(widget.audio.samples)])
    assert widget.results[0].song_id == TRUTH
    drawn = {
        message["first"] + i: st
        for message, *_ in sent
        if message["type"] == "pitch"
        for i, st in enumerate(message["pitch"])
    }
    both = [(st, widget._line[i]) for i, st in drawn.items() if st and widget._line[i]]
    assert len(both) > 20
    assert np.mean([abs(live - final) < 0.5 for live, final in both]) > 0.9


def test_a_slow_tracker_draws_seldom(hum, widget, sent, monkeypatch):
    now_s = iter(np.arange(10000.0))  # a second passes between two looks at the clock
    monkeypatch.setattr(recorder, "perf_counter", lambda: next(now_s))
    record(widget, hum, size=1600)
    assert 1 <= len(sent) <= hum.duration_s + 1


def test_a_trimmed_hum_is_searched_again_and_saved(widget, hum, tmp_path):
    widget.hear(hum)
    whole = widget.audio
    widget.trim(1.04, 6.0)
    assert widget.audio.duration_s == pytest.approx(5.0)
    np.testing.assert_array_equal(widget.audio.samples, whole.samples[RATE_HZ : 6 * RATE_HZ])
    assert widget._kept_s == [1.0, 6.0]
    assert len(widget.contour) == 50
    assert widget.results[0].song_id == TRUTH
    receive(widget, type="trim", start_s=2.0, end_s=99.0)
    assert widget._kept_s == [2.0, pytest.approx(whole.duration_s, abs=0.1)]
    with pytest.raises(QbhError, match="too short"):
        widget.trim(1, 2)
    with pytest.raises(QbhError, match="too short"):
        widget.trim(0, -3)
    assert widget._kept_s[0] == 2.0
    widget.trim()
    assert len(widget.audio.samples) == len(whole.samples)
    widget.save(tmp_path / "hum.wav")
    np.testing.assert_allclose(load(tmp_path / "hum.wav").samples, hum.samples, atol=1e-4)
    with pytest.raises(QbhError, match=r"\.wav or \.flac"):
        widget.save(tmp_path / "hum.doc")


def test_nothing_to_trim_save_or_play_yet(widget, sent, tmp_path):
    for doing in (widget.trim, lambda: widget.save(tmp_path / "hum.wav"), widget.matched):
        with pytest.raises(QbhError, match="There is no"):
            doing()
    receive(widget, type="sound", rank=None, ticket="1")
    assert sent == []


def test_sounds_are_sent_when_asked_for_and_never_kept_in_the_state(widget, sent, hum):
    widget.hear(hum)
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


def test_callbacks(widget, hum):
    called = []
    widget.on_heard(called.append)
    widget.hear(hum)
    widget.trim(0, 6)
    with pytest.raises(QbhError):
        widget.hear(Audio(hum.samples[:100], RATE_HZ))
    assert called == [widget, widget]
    widget.on_heard(called.append, remove=True)
    widget.hear(hum)
    assert len(called) == 2


class _Device:
    """A sounddevice whose microphone gets a hum."""

    class PortAudioError(Exception):
        pass

    def __init__(self, samples):
        self.samples = samples

    def rec(self, count, rate_hz, channels, dtype):
        if self.samples is None:
            raise self.PortAudioError("Error querying device -1")
        return self.samples[:count, None]

    def wait(self):
        pass


def test_the_kernels_machine_records(widget, hum, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", _Device(hum.samples))
    widget.record_here(6)
    assert widget.audio.duration_s == pytest.approx(6)
    assert widget.results[0].song_id == TRUTH
    brief = HumRecorder(longest_s=5)
    receive(brief, type="record_here")
    assert brief.audio.duration_s == pytest.approx(5)
    monkeypatch.setitem(sys.modules, "sounddevice", _Device(None))
    with pytest.raises(QbhError, match="cannot record"):
        widget.record_here()
    with pytest.raises(QbhError, match="2 to 30 s"):
        widget.record_here(31)
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    receive(widget, type="record_here")
    assert "pip install sounddevice" in widget.status
    with pytest.raises(MissingPackageError, match="pip install sounddevice"):
        widget.record_here()


def test_what_is_missing_is_named():
    code = "import sys; sys.modules['anywidget'] = None; import qbhkit.widgets"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'qbhkit[notebooks]'" in done.stderr


def test_wrong_arguments(searcher):
    for wrong in ({"k": 0}, {"longest_s": 1.0}, {"longest_s": 61.0}):
        with pytest.raises(QbhError, match=next(iter(wrong))):
            HumRecorder(searcher, **wrong)


def test_the_page_and_the_widget_share_one_recorder(widget):
    import qbhkit.service

    page = Path(qbhkit.service.__file__).parent / "page"
    assert widget._core == (page / "recorder.js").read_text("utf-8")
    assert 'from "./recorder.js"' in (page / "page.js").read_text("utf-8")
