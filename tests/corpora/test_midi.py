from pathlib import Path

import numpy as np
import pytest
import symusic

from qbhkit.corpora import songs_of
from qbhkit.corpora.midi import MidiFiles, read_midi
from qbhkit.errors import QbhError

LOW = [(0, 480, 60), (480, 240, 62), (960, 480, 59)]  # ticks, 480 a beat of half a second
HIGH = [(0, 480, 72), (480, 480, 74)]
LOW_S = [[0, 0.5, 60], [0.5, 0.25, 62], [1.0, 0.5, 59]]
HIGH_S = [[0, 0.5, 72], [0.5, 0.5, 74]]


def write(
    path: Path, *tracks: tuple[str, list], drums: str | None = None, bpm: float = 120
) -> Path:
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, bpm))
    for name, notes in tracks:
        track = symusic.Track(name, 0, name == drums)
        for begin, length, pitch in notes:
            track.notes.append(symusic.Note(begin, length, pitch, 80))
        score.tracks.append(track)
    score.dump_midi(path)
    return path


@pytest.mark.parametrize("name", ["Main melody", "Vocals", "voice", "Vox", "lead", "Singer"])
def test_a_named_melody_track_is_taken_although_another_is_higher(tmp_path, name):
    path = write(tmp_path / "a.mid", ("Piano", HIGH), (name, LOW))
    np.testing.assert_allclose(read_midi(path), LOW_S, atol=1e-6)


def test_of_several_melody_tracks_the_fullest_is_taken(tmp_path):
    path = write(tmp_path / "a.mid", ("voice 2", HIGH), ("voice 1", LOW), ("bass", LOW))
    np.testing.assert_allclose(read_midi(path), LOW_S, atol=1e-6)


@pytest.mark.parametrize("name", ["", "MIDI out 1"])
def test_without_a_named_track_the_skyline_is_taken(tmp_path, name):
    path = write(tmp_path / "a.mid", (name, LOW), ("Strings", HIGH))
    np.testing.assert_allclose(read_midi(path), [*HIGH_S, [1.0, 0.5, 59]], atol=1e-6)


def test_an_empty_melody_track_gives_way_to_the_skyline(tmp_path):
    path = write(tmp_path / "a.mid", ("melody", []), ("Piano", HIGH))
    np.testing.assert_allclose(read_midi(path), HIGH_S, atol=1e-6)


def test_drums_are_left_out(tmp_path):
    path = write(tmp_path / "a.mid", ("Piano", LOW), ("Kit", [(0, 1440, 100)]), drums="Kit")
    np.testing.assert_allclose(read_midi(path), LOW_S, atol=1e-6)
    only = write(tmp_path / "b.mid", ("Lead", [(0, 480, 36)]), drums="Lead")
    with pytest.raises(QbhError, match=r"b\.mid holds no notes"):
        read_midi(only)


def test_damaged_truncated_and_empty_files_are_refused(tmp_path):
    whole = write(tmp_path / "a.mid", ("x", LOW)).read_bytes()
    for content in (b"", b"MThd", b"this is a letter", whole[: len(whole) // 2], whole[:-6]):
        (tmp_path / "bad.mid").write_bytes(content)
        with pytest.raises(QbhError, match=r"bad\.mid is not a readable MIDI file"):
            read_midi(tmp_path / "bad.mid")
    (tmp_path / "bad.mid").write_bytes(whole[:14])
    with pytest.raises(QbhError, match=r"bad\.mid holds no notes"):
        read_midi(tmp_path / "bad.mid")
    with pytest.raises(QbhError, match=r"absent\.mid does not exist"):
        read_midi(tmp_path / "absent.mid")


def test_tempo_and_first_onset_are_kept_but_not_of_many_hours(tmp_path):
    path = write(tmp_path / "a.mid", ("x", [(960, 480, 60)]), bpm=60)
    np.testing.assert_allclose(read_midi(path), [[2.0, 1.0, 60]], atol=1e-6)
    path = write(tmp_path / "a.mid", ("x", [(0, 480, 60), (480 * 2 * 3600 * 7, 480, 60)]))
    with pytest.raises(QbhError, match="over 6 hours"):
        read_midi(path)


def test_songs_have_the_file_name_as_id(tmp_path):
    files = (write(tmp_path / "00007.mid", ("x", LOW)), write(tmp_path / "b.c.MIDI", ("x", HIGH)))
    songs = list(songs_of(MidiFiles(files, "mine", "free", {"00007": "Air"})))
    assert [(song.id, song.title) for song in songs] == [("00007", "Air"), ("b.c", "b.c")]
    assert [song.source for song in songs] == [str(path) for path in files]
    assert {song.licence for song in songs} == {"free"}
    np.testing.assert_allclose(songs[1].notes, HIGH_S, atol=1e-6)
