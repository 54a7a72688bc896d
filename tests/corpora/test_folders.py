import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from qbhkit.contour import PUBLISHED_MEAN_ST, PUBLISHED_STD_ST, F0Track, from_f0
from qbhkit.corpora import CORPORA, open_corpus, open_source, songs_of
from qbhkit.corpora.folders import (
    EVALUATION_YEAR,
    Ioacas,
    MelodyTable,
    MirQbsh,
    SeedContours,
    pop909,
    read_pitch_vector,
)
from qbhkit.corpora.training_songs import read_split
from qbhkit.errors import QbhError
from qbhkit.f0_csv import write_f0_csv

NOTES = np.array([[0, 0.5, 60], [0.5, 0.5, 64], [1.0, 0.5, 67]])
SONG_LIST = (
    "00001\tI'm the teapot\t-\t19\r\n00012\t-\t三輪車\t154\r\n"
    "00011\tTen\t十個\t96\r\n00099\t-\t-\t1\r\n"
)


def hum(path: Path, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(round(8000 * seconds)) / 8000)
    soundfile.write(path, tone, 8000, subtype="PCM_U8" if path.suffix.lower() == ".wav" else None)
    return path


def f0_csv(path: Path) -> Path:
    write_f0_csv(F0Track(np.full(100, 440.0), np.ones(100)), path)
    return path


@pytest.fixture
def mir_qbsh(tmp_path, write_midi) -> Path:
    root = tmp_path / "mir-qbsh"
    for song_id in ("00012", "00001", "00011", "00099"):
        write_midi(root / "midiFile" / f"{song_id}.mid", NOTES)
    (root / "midiFile" / "songList.txt").write_bytes(SONG_LIST.encode("big5"))
    for year, person, song_id in [
        ("year2004", "person00002", "00001"),
        ("year2003", "person00001", "00012"),
        ("year2003", "person00001", "00001"),
    ]:
        path = hum(root / "waveFile" / year / person / f"{song_id}.wav")
        if person == "person00001":
            path.with_suffix(".pv").write_text("0\n60.5\n  61\n0.00\n")
    return root


def test_mir_qbsh_gives_its_songs_with_big5_titles_and_never_the_hums(mir_qbsh):
    corpus = MirQbsh(mir_qbsh)
    songs = list(songs_of(corpus))
    assert [(song.id, song.title) for song in songs] == [
        ("00001", "I'm the teapot"),
        ("00011", "Ten / 十個"),
        ("00012", "三輪車"),
        ("00099", "00099"),
    ]
    np.testing.assert_allclose(songs[0].notes, NOTES, atol=1e-6)
    (mir_qbsh / "midiFile" / "songList.txt").unlink()
    assert next(songs_of(corpus)).title == "00001"


def test_mir_qbsh_hums_are_sorted_with_singer_and_label(mir_qbsh):
    hums = MirQbsh(mir_qbsh).hums()
    assert [(one.song_id, one.singer) for one in hums] == [
        ("00001", "year2003/person00001"),
        ("00012", "year2003/person00001"),
        ("00001", "year2004/person00002"),
    ]
    assert hums[0].labelled_st is not None
    assert hums[0].labelled_st.tolist() == [0, 60.5, 61, 0]
    assert hums[2].labelled_st is None
    assert hums[2].path.is_file()
    (one,) = MirQbsh(mir_qbsh).hums("year2004")
    assert one.singer == "year2004/person00002"
    with pytest.raises(QbhError, match=r"holds no waveFile/year2009/PERSON/SONG\.wav: fetch it"):
        MirQbsh(mir_qbsh).hums(EVALUATION_YEAR)


def test_who_sang_in_two_years_is_one_singer(mir_qbsh):
    """By the corpus's own notes; the first year gives the name."""
    again, first, other = "year2005/person00010", "year2004a/person00007", "year2005/person00015"
    for folder in (again, first, other):
        hum(mir_qbsh / "waveFile" / folder / "00001.wav")
    by_folder = {"/".join(one.path.parts[-3:-1]): one.singer for one in MirQbsh(mir_qbsh).hums()}
    assert by_folder[again] == by_folder[first] == first
    assert by_folder[other] == other


@pytest.fixture
def real_mir_qbsh() -> MirQbsh:
    root = Path(os.environ.get("QBHKIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / "mir-qbsh" / "waveFile" / "year2003").is_dir():
        pytest.skip("all years of MIR-QBSH are not in the data folder")
    return MirQbsh(root / "mir-qbsh")


def test_all_years_of_mir_qbsh(real_mir_qbsh):
    hums = real_mir_qbsh.hums()
    assert len(hums) == 1954
    assert len({one.singer for one in hums}) == 115
    assert all(one.labelled_st is not None and len(one.labelled_st) == 250 for one in hums)
    assert {one.song_id for one in hums} <= {path.stem for path in real_mir_qbsh.files}


def test_the_evaluation_year_holds_the_singers_of_the_split(real_mir_qbsh):
    hums, split = real_mir_qbsh.hums(EVALUATION_YEAR), read_split("mir_qbsh")
    assert EVALUATION_YEAR == "year2009"
    assert len(hums) == 423
    singers = {one.singer for one in hums}
    assert len(singers) == 26
    dealt = {singer for fold in split["singer_folds"] for singer in fold}
    assert dealt == {one.singer for one in real_mir_qbsh.hums()}
    assert set(split["training_singers"]) < singers
    others = [one for one in real_mir_qbsh.hums() if one.path.parts[-3] != EVALUATION_YEAR]
    assert not {one.singer for one in others} & singers  # nobody of 2009 sang in another year


@pytest.mark.parametrize("content", [b"60\nx\n", b"-1\n", b"128\n", b"nan\n", b"\xff\xfe"])
def test_malformed_labels_are_refused(tmp_path, content):
    (tmp_path / "a.pv").write_bytes(content)
    with pytest.raises(QbhError, match=r"a\.pv (is not a pitch vector|holds values)"):
        read_pitch_vector(tmp_path / "a.pv")


def ioacas(root: Path) -> Path:
    root.mkdir()
    np.savez(root / "ioacas_melodies_100ms_midi.npz", a1=[60, 60, 0, 62.5], a2=[48])
    sung = {"q1": np.repeat([60, 62.0], 10), "q2": np.full(3, 50.0)}
    np.savez(root / "ioacas_queries_parselmouth_340.npz", **sung)
    labels = {"q1": "a1", "q2": "a2"}
    (root / "ioacas_queries_parselmouth_340_labels.json").write_text(json.dumps(labels))
    return root


def test_ioacas_melodies_and_queries(tmp_path):
    corpus = Ioacas(ioacas(tmp_path / "ioacas"))
    songs = list(songs_of(corpus))
    assert [song.id for song in songs] == ["a1", "a2"]
    assert songs[0].contour().pitch_st == pytest.approx([60, 60, 0, 62.5], abs=1e-3)
    queries = corpus.queries()
    assert {key: song_id for key, (_, song_id) in queries.items()} == {"q1": "a1", "q2": "a2"}
    assert queries["q1"][0].hop_s == 0.01
    assert from_f0(queries["q1"][0]).pitch_st == pytest.approx([60, 62], abs=1e-3)


def test_ioacas_missing_or_damaged_is_refused(tmp_path):
    with pytest.raises(QbhError, match="does not exist"):
        Ioacas(tmp_path)
    root = ioacas(tmp_path / "ioacas")
    path = root / "ioacas_melodies_100ms_midi.npz"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[140] ^= 0xFF
    np.save(tmp_path / "plain.npy", np.arange(3))
    with zipfile.ZipFile(tmp_path / "text.npz", "w") as archive:
        archive.writestr("a1", "no array")  # NumPy gives what has no header as bytes
    others = [(tmp_path / name).read_bytes() for name in ("plain.npy", "text.npz")]
    for content in (whole[: len(whole) // 2], flipped, b"\x93NUMPY", *others):
        path.write_bytes(content)
        with pytest.raises(QbhError, match=r"ioacas_melodies_100ms_midi\.npz cannot be read"):
            list(songs_of(Ioacas(root)))
    (root / "ioacas_queries_parselmouth_340_labels.json").write_text('{"q1": "a1"}')
    with pytest.raises(QbhError, match="no song for the query q2"):
        Ioacas(root).queries()


NOTE_TABLE = {
    "names": np.array(["b", "a"]), "first": np.array([0, 2, 3]),
    "onset_ms": np.array([500, -250, 0], np.int32),
    "duration_ms": np.array([250, 500, 1000], np.int32), "midi": np.array([62, 60, 70], np.uint8),
}  # fmt: skip
F0_TABLE = {
    "names": np.array(["x"]), "first": np.array([0, 3]),
    "hz": np.array([0, 440, 220], np.float32),
}  # fmt: skip


def melody_table(path: Path, columns: dict[str, np.ndarray]) -> MelodyTable:
    np.savez(path, **columns)
    return MelodyTable(path, "table", "own")


def test_a_table_of_notes_gives_its_melodies_in_order_from_time_0(tmp_path):
    songs = list(songs_of(melody_table(tmp_path / "notes.npz", NOTE_TABLE)))
    assert [(song.id, song.licence) for song in songs] == [("b", "own"), ("a", "own")]
    np.testing.assert_allclose(songs[0].notes, [[0, 0.5, 60], [0.75, 0.25, 62]])
    np.testing.assert_allclose(songs[1].notes, [[0, 1, 70]])


def test_a_table_of_f0_gives_tracks(tmp_path):
    (song,) = songs_of(melody_table(tmp_path / "f0.npz", F0_TABLE))
    assert song.f0.frequency_hz.tolist() == [0, 440, 220]
    assert song.f0.voiced.tolist() == [False, True, True]
    assert song.f0.hop_s == 0.01


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        (NOTE_TABLE, {"first": np.array([0, 2, 4])}, "first does not fit"),
        (NOTE_TABLE, {"first": np.array([0, 3])}, "first does not fit"),
        (NOTE_TABLE, {"first": np.array([0, 3, 3])}, "a is empty"),
        (NOTE_TABLE, {"midi": np.array([62, 60], np.uint8)}, "same shape"),
        (NOTE_TABLE, {"midi": np.array([62, 60, 200], np.uint8)}, "a holds values"),
        (NOTE_TABLE, {"duration_ms": np.array([1, 0, 1])}, "longer than 0 s"),
        (NOTE_TABLE, {"onset_ms": np.array([0, np.nan, 0])}, "finite"),
        (F0_TABLE, {"hz": np.array([0, -1.0, 2])}, "f0 track"),
        (F0_TABLE, {"names": np.array(3)}, "len"),
    ],
)
def test_a_table_of_another_layout_is_refused(tmp_path, table, change, reason):
    path = tmp_path / "notes.npz"
    with pytest.raises(QbhError, match=rf"notes\.npz is not a table .*{reason}.*copy it again"):
        list(songs_of(melody_table(path, table | change)))


def test_a_table_without_a_column_is_refused(tmp_path):
    columns = {key: value for key, value in NOTE_TABLE.items() if key != "midi"}
    with pytest.raises(QbhError, match=r"notes\.npz is not a table .*midi"):
        list(songs_of(melody_table(tmp_path / "notes.npz", columns)))


def test_a_table_with_pickled_names_is_refused(tmp_path):
    names = {"names": np.array(["b", None], object)}
    with pytest.raises(QbhError, match=r"notes\.npz cannot be read .*pickle.*copy it again"):
        list(songs_of(melody_table(tmp_path / "notes.npz", NOTE_TABLE | names)))


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(QbhError, match=r"notes\.npz does not exist.*data list"):
        open_corpus("hooktheory", tmp_path)


@pytest.mark.parametrize(
    ("name", "count"), [("lmd-vocals", 8889), ("hooktheory", 16232), ("medleydb", 108)]
)
def test_the_real_tables(name, count):
    root = Path(os.environ.get("QBHKIT_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"{name} is not in the data folder")
    songs = list(songs_of(open_corpus(name, root)))
    assert len({song.id for song in songs}) == len(songs) == count


def test_pop909_takes_one_version_of_each_song(tmp_path, write_midi):
    for number in ("002", "001"):
        write_midi(tmp_path / number / f"{number}.mid", NOTES, "MELODY")
        higher = NOTES + np.array([0, 0, 12])
        write_midi(tmp_path / number / "versions" / f"{number}-v1.mid", higher)
        write_midi(tmp_path / number / f"{number}-v2.mid", NOTES)
    corpus = pop909(tmp_path)
    songs = list(songs_of(corpus))
    assert [song.id for song in songs] == ["001", "002"]
    assert corpus.name == "pop909"
    assert songs[0].licence == "MIT"
    np.testing.assert_allclose(songs[0].notes, NOTES, atol=1e-6)
    with pytest.raises(QbhError, match="clone the POP909"):
        pop909(tmp_path / "001" / "versions")


def test_transcriptions_are_read_from_the_data_folder_else_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(
        QbhError, match=r"pop909-transcribed holds no melodies: run 'qbhkit data tr"
    ):
        open_corpus("pop909-transcribed", tmp_path / "data")
    (tmp_path / "cache").mkdir()
    f0_csv(tmp_path / "cache" / "pop909-transcribed" / "002.f0.csv")
    (tmp_path / "cache" / "pop909-transcribed" / ".partial-x.csv").write_text("half")
    corpus = open_corpus("pop909-transcribed", tmp_path / "data")
    assert [song.id for song in songs_of(corpus)] == ["002"]
    assert corpus.name == "pop909-transcribed"
    f0_csv(tmp_path / "data" / "pop909-transcribed" / "001.f0.csv")
    corpus = open_corpus("pop909-transcribed", tmp_path / "data")
    assert [song.id for song in songs_of(corpus)] == ["001"]
    assert open_source("pop909-transcribed", tmp_path / "data")[0].files == corpus.files
    assert open_source("pop909-heard", tmp_path / "data")[0].files == corpus.files  # its old name


def seed(**changes) -> dict:
    """Half a second of 220 Hz and half a second of nothing, from 7 s into song 42."""
    normalised = (57 - PUBLISHED_MEAN_ST) / PUBLISHED_STD_ST
    return {
        "song_id": 42,
        "frame_pos": [700, 800],
        "melody": [normalised] * 50 + [0] * 50,
        "is_vocal": [True] * 50 + [False] * 50,
        **changes,
    }


def seed_file(root: Path, content: object) -> Path:
    root.mkdir(exist_ok=True)
    (root / "contour_tiny.json").write_text(json.dumps(content))
    return root


def test_seed_contours_give_each_excerpt_at_its_pitch(tmp_path):
    later = seed(frame_pos=[900, 1000], melody=[0] * 100)  # 0 is a pitch where it is voiced
    seed_file(tmp_path / "seed-contours", [seed(), later])
    songs = list(songs_of(open_corpus("seed-contours", tmp_path)))
    assert [song.id for song in songs] == ["42-700", "42-900"]
    first, second = (song.contour().pitch_st for song in songs)
    assert first == pytest.approx([57.0] * 5 + [0.0] * 5, abs=1e-3)
    assert second == pytest.approx([PUBLISHED_MEAN_ST] * 5 + [0.0] * 5, abs=1e-3)
    assert songs[0].f0 is not None
    assert songs[0].f0.hop_s == 0.01


@pytest.mark.parametrize(
    "content",
    [
        [seed(melody=[0.0] * 99)],
        [seed(melody=[float("nan")] * 100)],
        [seed(), {"song_id": 1}],
        {"song_id": 1},
        7,
    ],
)
def test_broken_seed_contours_are_refused(tmp_path, content):
    corpus = SeedContours(seed_file(tmp_path, content))
    with pytest.raises(QbhError, match=r"contour_tiny\.json is not a list .*: copy it again\.$"):
        list(songs_of(corpus))


def test_open_source_takes_names_files_and_folders(tmp_path, mir_qbsh, write_midi):
    data = mir_qbsh.parent
    (named,) = open_source("mir-qbsh", data)
    assert isinstance(named, MirQbsh)
    assert len(named.files) == 4

    folder = tmp_path / "mine"
    for name in ("b10.mid", "b2.mid", "deep/a1.MIDI"):
        write_midi(folder / name, NOTES)
    f0_csv(folder / "x.f0.csv")
    hum(folder / "deep" / "er" / "y.WAV")
    (folder / "notes.csv").write_text("not an f0 track")
    (folder / "readme.txt").write_text("hello")
    corpora = {corpus.name: corpus for corpus in open_source(str(folder), data)}
    assert [path.name for path in corpora["midi"].files] == ["b2.mid", "b10.mid", "a1.MIDI"]
    assert [path.name for path in corpora["f0"].files] == ["x.f0.csv"]
    assert [path.name for path in corpora["audio"].files] == ["y.WAV"]

    (single,) = open_source(str(folder / "b2.mid"), data)
    assert [song.id for song in songs_of(single)] == ["b2"]


def test_a_corpus_name_wins_over_a_folder(tmp_path, mir_qbsh, write_midi, monkeypatch):
    write_midi(tmp_path / "here" / "mir-qbsh" / "other.mid", NOTES)
    monkeypatch.chdir(tmp_path / "here")
    assert len(open_source("mir-qbsh", mir_qbsh.parent)[0].files) == 4
    (by_path,) = open_source("./mir-qbsh", mir_qbsh.parent)
    assert [path.name for path in by_path.files] == ["other.mid"]


def test_unknown_and_absent_corpora_say_what_to_do(tmp_path, write_midi):
    with pytest.raises(QbhError, match="qbhkit data list"):
        open_corpus("best-songs", tmp_path)
    for name in ("mir-qbsh", "mirex-essen-2000", "ioacas", "pop909", "seed-contours"):
        with pytest.raises(QbhError, match=name):
            open_corpus(name, tmp_path)
    write_midi(tmp_path / "mirex-essen-2000" / "00002.mid", NOTES)
    assert [song.id for song in songs_of(open_corpus("mirex-essen-2000", tmp_path))] == ["00002"]


def test_every_corpus_says_where_it_comes_from_and_on_which_terms():
    for name, info in CORPORA.items():
        assert info.name == name
        assert all((info.what, info.where, info.terms, info.cure))
        assert (info.url is None) == (info.sha256 is None)
