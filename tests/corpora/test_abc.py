import os

import numpy as np
import pytest

from qbhkit.corpora import abc, songs_of
from qbhkit.corpora.abc import (
    MUSIC21_COLLECTIONS,
    AbcFiles,
    Tune,
    music21_collection,
    read_text,
    split_tunes,
    tune_notes,
)
from qbhkit.errors import QbhError

SCALE = "CDEF|GABc|"


def abc_of(body: str, head: str = "M:4/4\nL:1/4\nQ:1/4=120\nK:C\n", number: str = "1") -> str:
    return f"X:{number}\nT:Tune {number}\n{head}{body}\n"


def notes_of(body: str, **head: str) -> np.ndarray:
    return tune_notes(split_tunes(abc_of(body, **head))[0])


def pitches_of(body: str) -> list[int]:
    return notes_of(body)[:, 2].astype(int).tolist()


def test_split_gives_number_title_and_text_of_each_tune():
    book = "% a book\n\n" + abc_of(SCALE, number="7") + "\n" + abc_of("CCCC|", number="12 % x")
    tunes = split_tunes(book)
    assert [(tune.number, tune.title) for tune in tunes] == [("7", "Tune 7"), ("12", "Tune 12 % x")]
    assert tunes[0].text.startswith("X:7\n")
    assert "CCCC" not in tunes[0].text
    assert "CCCC" in tunes[1].text


def test_split_takes_the_first_title_and_no_neighbouring_line_for_an_empty_one():
    assert split_tunes("X:1\nT:\nM:4/4\nK:C\nC")[0].title == ""
    assert split_tunes("X:1\nT:  One  \nT:Two\nK:C\nC")[0].title == "One"
    assert split_tunes("X:1\r\nT:One\r\nK:C\r\nC\r\n")[0].title == "One"
    assert split_tunes("X:\nK:C\nC")[0].number == "0"


def test_text_without_a_number_is_one_tune():
    (tune,) = split_tunes("T:Alone\nK:C\nCDEF|\n")
    assert (tune.number, tune.title) == ("1", "Alone")
    assert tune_notes(tune)[:, 2].tolist() == [60, 62, 64, 65]


def test_notes_have_seconds_and_midi_pitch():
    notes = notes_of("C2 D E|z2 ^F _B,|")
    np.testing.assert_allclose(notes[:, 0], [0, 1, 1.5, 3, 3.5], atol=2e-3)
    np.testing.assert_allclose(notes[:, 1], [1, 0.5, 0.5, 0.5, 0.5], atol=5e-3)
    assert notes[:, 2].tolist() == [60, 62, 64, 66, 58]
    assert notes_of("z4|CDEF|")[0, 0] == 0  # even after a rest


def test_key_signature_and_tempo_are_obeyed():
    assert notes_of("FGAB|", head="M:4/4\nL:1/4\nK:Eb\n")[:, 2].tolist() == [65, 67, 68, 70]
    slow = notes_of("CDEF|", head="M:4/4\nL:1/4\nQ:1/4=60\nK:C\n")
    np.testing.assert_allclose(np.diff(slow[:, 0]), 1.0, atol=2e-3)


def test_repeats_are_played():
    assert pitches_of("|:CDEF:|GABc|]") == [60, 62, 64, 65] * 2 + [67, 69, 71, 72]
    assert pitches_of("|:CDEF|1 G4:|2 c4|]") == [60, 62, 64, 65, 67, 60, 62, 64, 65, 72]


@pytest.mark.parametrize(
    "body", ["{g}C2{ga}D2|{/g}E2F2|", '"Am"C2 "G7"~D2|!trill!E2 TF2|'], ids=["grace", "decorated"]
)
def test_grace_notes_chord_symbols_and_decorations_are_not_sung(body):
    np.testing.assert_array_equal(notes_of(body), notes_of("C2D2|E2F2|"))


def test_a_chord_is_sung_as_its_top_note_only():
    assert pitches_of("[CEG]2 z2|[CE][DF] [EG]2|") == [67, 64, 65, 67]
    np.testing.assert_allclose(notes_of("[CEG]2 z2|c4|")[:, 1], [1, 2], atol=5e-3)


def test_field_lines_are_left_alone():
    words = abc_of('CDEF|\nw: ~one "two" {three} four\n% [CEG]\nGABc|')
    assert tune_notes(split_tunes(words)[0])[:, 2].tolist() == [60, 62, 64, 65, 67, 69, 71, 72]


def test_standard_output_stays_silent_at_descriptor_level(capfd):
    os.write(1, b"before ")
    with pytest.raises(QbhError):
        tune_notes(Tune("1", "", "X:1\nno music at all"))
    notes_of("C D E q ? @ F | G17/3 &&& (3A |")  # full of things to warn about
    os.write(1, b"after")
    assert capfd.readouterr().out == "before after"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of descriptors")
def test_no_descriptor_is_left_open():
    notes_of(SCALE)
    before = len(os.listdir("/proc/self/fd"))
    notes_of(SCALE)
    with pytest.raises(QbhError):
        tune_notes(Tune("1", "", "X:1\nK:Q\nC99999"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_ids_are_the_name_or_name_and_number(tmp_path):
    (tmp_path / "00001.abc").write_text(abc_of(SCALE))
    (tmp_path / "book.abc").write_text(
        "".join(abc_of(SCALE, number=number) for number in ("1", "2", "2", "2"))
    )
    files = (tmp_path / "00001.abc", tmp_path / "book.abc")
    songs = list(songs_of(AbcFiles(files)))
    ids = ["00001", "book-1", "book-2", "book-2-2", "book-2-3"]
    assert [song.id for song in songs] == ids
    assert [song.title for song in songs] == ["Tune 1", "Tune 1", *["Tune 2"] * 3]
    assert songs[0].source == str(files[0])
    (tmp_path / "x.abc").write_text("X:3\nK:C\nCDEF|\n")
    assert [song.title for song in songs_of(AbcFiles((tmp_path / "x.abc",)))] == ["x"]
    with_prefix = AbcFiles(files, "mine", "free", "mine-")
    assert [song.id for song in songs_of(with_prefix)] == [f"mine-{name}" for name in ids]
    assert {song.licence for song in songs_of(with_prefix)} == {"free"}


def test_a_bad_tune_does_not_stop_the_others(tmp_path):
    path = tmp_path / "book.abc"
    broken = "X:2\nT:Broken\nthere is no key and no note\n\n"
    path.write_text(abc_of(SCALE) + "\n" + broken + abc_of("cBAG|", number="3"))
    assert [song.id for song in AbcFiles((path,)).read(path)] == ["book-1", "book-3"]
    path.write_text(broken)
    with pytest.raises(QbhError, match=r"book\.abc holds no readable ABC tune"):
        list(AbcFiles((path,)).read(path))


def test_short_tunes_are_left_out_on_request(tmp_path):
    path = tmp_path / "book.abc"
    path.write_text(abc_of("CDE|") + abc_of(SCALE, number="2"))
    corpus = AbcFiles((path,), fewest_notes=8)
    assert [song.id for song in corpus.read(path)] == ["book-2"]
    path.write_text(abc_of("CDE|"))
    assert list(corpus.read(path)) == []  # readable, only short


def test_text_is_read_as_utf8_or_latin1(tmp_path):
    path = tmp_path / "a.abc"
    for encoding in ("utf-8", "utf-8-sig", "latin-1"):
        path.write_bytes("X:1\nT:Säng\nK:C\nC".encode(encoding))
        assert split_tunes(read_text(path))[0].title == "Säng"


def test_missing_and_enormous_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(QbhError, match="does not exist"):
        read_text(tmp_path / "absent.abc")
    (tmp_path / "a.abc").write_text("X:1\n" * 100)
    monkeypatch.setattr(abc, "_MOST_BYTES", 100)
    with pytest.raises(QbhError, match="larger than"):
        read_text(tmp_path / "a.abc")


def test_collections_of_music21_are_there():
    for name, licence in MUSIC21_COLLECTIONS.items():
        song = next(songs_of(music21_collection(name)))
        assert song.id.startswith(f"{name}-")
        assert song.licence == licence
        assert len(song.notes) >= 8


def test_without_music21_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(abc, "find_spec", lambda _name: None)
    with pytest.raises(QbhError, match="pip install music21"):
        music21_collection("airdsAirs")
