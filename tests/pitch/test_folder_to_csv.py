import os
import time

import numpy as np
import pytest

from qbhkit.audio import Audio, write_wav
from qbhkit.errors import QbhError
from qbhkit.f0_csv import read_f0_csv
from qbhkit.pitch import folder_to_csv as module
from qbhkit.pitch.folder_to_csv import extract_all
from qbhkit.pitch.trackers import get_tracker

NAMES = ("a", "b", "c")


def tone(frequency_hz, seconds=0.5):
    at = np.arange(round(16000 * seconds)) / 16000
    return Audio((0.3 * np.sin(2 * np.pi * frequency_hz * at)).astype(np.float32), 16000)


@pytest.fixture
def recordings(tmp_path):
    """Three whistles, and where their melodies go."""
    outputs = {}
    for number, name in enumerate(NAMES):
        source = tmp_path / "in" / f"{name}.wav"
        write_wav(tone(800 + 100 * number), source)
        long_ago = time.time() - 1000
        os.utime(source, (long_ago, long_ago))
        outputs[source] = tmp_path / "out" / f"{name}.f0.csv"
    return outputs


@pytest.fixture
def tracked(monkeypatch):
    """The lengths of the recordings that this process has tracked."""
    tracked = []

    class Counting:
        def __init__(self, name):
            self._tracker = get_tracker(name)
            self.rate_hz = self._tracker.rate_hz

        def track(self, audio):
            tracked.append(len(audio.samples))
            return self._tracker.track(audio)

    monkeypatch.setattr(module, "get_tracker", Counting)
    return tracked


def extract(outputs, tracker="whistle", workers=1):
    return extract_all(outputs, tracker, workers, progress=False)


def contents(outputs):
    return {target.name: target.read_bytes() for target in outputs.values()}


def test_every_recording_becomes_a_track(recordings):
    assert extract(recordings) == (3, 0, [])
    for number, target in enumerate(recordings.values()):
        track = read_f0_csv(target)
        assert len(track.voicing) == 50
        assert np.median(track.frequency_hz[track.voiced]) == pytest.approx(
            800 + 100 * number, rel=0.01
        )


def test_a_changed_or_lost_one_is_done_again(recordings, tracked):
    """Times are compared for equality only: a copy of another file may be older than its result."""
    extract(recordings)
    newer, older, lost = recordings
    for source, late_s in ((newer, 5), (older, -5000)):
        write_wav(tone(1500), source)
        os.utime(source, (time.time() + late_s,) * 2)
    recordings[lost].unlink()
    assert extract(recordings) == (3, 0, [])
    assert len(tracked) == 6
    track = read_f0_csv(recordings[older])
    assert np.median(track.frequency_hz[track.voiced]) == pytest.approx(1500, rel=0.01)


def test_new_recordings_and_another_tracker_are_done(recordings, tracked):
    """All by one tracker, one of them again by another, then all by that other one."""
    extract(dict(list(recordings.items())[:2]))
    assert extract(recordings) == (1, 2, [])
    extract(dict(list(recordings.items())[:1]), "swift-f0")
    assert extract(recordings, "swift-f0") == (2, 1, [])
    before = contents(recordings)
    assert extract(recordings, "swift-f0") == (0, 3, [])
    assert len(tracked) == 6
    assert contents(recordings) == before


def test_a_stopped_run_goes_on(recordings, tracked, monkeypatch):
    write = module.write_f0_csv

    def stopped(track, target):
        if target.name == "b.f0.csv":
            raise KeyboardInterrupt
        write(track, target)

    monkeypatch.setattr(module, "write_f0_csv", stopped)
    with pytest.raises(KeyboardInterrupt):
        extract(recordings)
    monkeypatch.setattr(module, "write_f0_csv", write)
    assert extract(recordings) == (2, 1, [])
    assert len(tracked) == 4


def test_one_that_fails_does_not_stop_the_others(recordings):
    second = list(recordings)[1]
    second.write_bytes(second.read_bytes()[:500])
    done = extract(recordings)
    assert (done.written, done.reused) == (2, 0)
    ((name, reason),) = done.failures
    assert name == str(second)
    assert "is truncated" in reason
    folder = recordings[second].parent
    assert sorted(path.name for path in folder.glob("*.csv")) == ["a.f0.csv", "c.f0.csv"]
    assert not [path for path in folder.iterdir() if path.suffix not in (".csv", ".json")]
    again = extract(recordings)
    assert (again.written, again.reused, len(again.failures)) == (0, 2, 1)


def test_errors_of_a_tracker_name_the_recording(recordings, monkeypatch):
    class Refusing:
        rate_hz = 16000

        def track(self, audio):
            raise QbhError("No pitch was found: sing louder.")

    monkeypatch.setattr(module, "get_tracker", lambda name: Refusing())
    done = extract(recordings)
    said = [f"{source}: No pitch was found: sing louder." for source in recordings]
    assert [reason for _, reason in done.failures] == said


def test_two_workers_give_what_one_gives(recordings, tmp_path):
    first = next(iter(recordings))
    first.write_bytes(b"")
    one = extract(recordings)
    apart = {source: tmp_path / "two" / target.name for source, target in recordings.items()}
    two = extract(apart, workers=2)
    assert two == one
    for source in list(recordings)[1:]:
        assert apart[source].read_bytes() == recordings[source].read_bytes()


def test_a_damaged_note_is_refused_with_its_cure(recordings):
    extract(recordings)
    note = next(iter(recordings.values())).parent / "melody.json"
    note.write_text("{")
    with pytest.raises(QbhError, match=r"melody\.json is damaged .*: delete"):
        extract(recordings)


def test_a_recording_that_fails_keeps_no_old_result(recordings):
    extract(recordings)
    source = next(iter(recordings))
    source.write_bytes(b"")
    os.utime(source, (time.time() + 5,) * 2)
    assert len(extract(recordings).failures) == 1
    assert not recordings[source].exists()


def test_a_refused_tracker_leaves_the_results_alone(recordings):
    extract(recordings)
    before = contents(recordings)
    with pytest.raises(QbhError, match="There is no tracker"):
        extract(recordings, "ear")
    assert contents(recordings) == before


def test_no_recordings_are_no_work():
    assert extract({}) == (0, 0, [])
