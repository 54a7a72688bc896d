import csv
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import typer

from qbhkit.audio import Audio, load, write_wav
from qbhkit.catalogue.read import open_catalogue
from qbhkit.cli import app, main
from qbhkit.contour import F0Track, midi_to_hz
from qbhkit.corpora.hum_csv import read_pairs
from qbhkit.f0_csv import read_f0_csv, write_f0_csv
from qbhkit.storage import asset
from qbhkit.synthesis.singer import Voice, render_hum
from qbhkit.weights import load_weights, save_weights

TRUTH = "00004"  # begins at 0 s
LATE = "00009"  # begins late
NOTES = np.stack([0.3 * np.arange(9), np.full(9, 0.28), [60, 62, 64, 65, 67, 60, 59, 55, 60]], 1)


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capfd, monkeypatch, tmp_path) -> Run:
    """Run a command and return what it left at the file descriptors."""
    monkeypatch.setenv("QBHKIT_DATA", str(tmp_path / "no corpora"))
    capfd.readouterr()

    def run(*arguments) -> Done:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capfd.readouterr())

    return run


def assert_refused(done: Done, *words: object) -> None:
    """Exit code 2, nothing on standard output, one sentence that says each of ``words`` once."""
    assert done.code == 2
    assert done.out == ""
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert lines[0].startswith("qbhkit: ")
    assert lines[0].endswith(".")
    assert not lines[0].endswith("..")
    assert "Traceback" not in done.err
    for word in words:
        assert done.err.count(str(word)) == 1, (word, done.err)


def sung(notes, hop_s=0.01, begin_s=0.0, end_s=9.0):
    """The f0 of a part of a melody, moved to time 0."""
    part = notes[(notes[:, 0] >= begin_s) & (notes[:, 0] < end_s)]
    at = part[0, 0] + (np.arange(int((end_s - begin_s) / hop_s)) + 0.5) * hop_s
    owner = np.searchsorted(part[:, 0], at, side="right") - 1
    sounding = at < part[owner, 0] + part[owner, 1]
    return F0Track(np.where(sounding, midi_to_hz(part[owner, 2]), 0), sounding * 1.0, hop_s)


@pytest.fixture(scope="module")
def stage1_catalogue(song_folder, tmp_path_factory) -> Path:
    """The songs by the weights of which the state embedder is a student."""
    path = tmp_path_factory.mktemp("stage1") / "catalogue"
    build = ["catalogue", "build", str(song_folder), "--out", str(path), "--weights", "stage1"]
    assert main(build) == 0
    return path


@pytest.fixture(scope="module")
def hums(song_notes, tmp_path_factory) -> Path:
    """``good.wav`` (of TRUTH), ``late.f0.csv`` (of LATE), and queries that cannot be used."""
    folder = tmp_path_factory.mktemp("hums")
    notes = song_notes[TRUTH]
    voice = Voice(key_st=-7, tempo=0.95)
    hum = render_hum(notes[notes[:, 0] < 8], voice, np.random.default_rng(0))
    write_wav(hum.audio, folder / "good.wav")
    late = song_notes[LATE]
    write_f0_csv(sung(late, begin_s=late[0, 0], end_s=late[0, 0] + 9), folder / "late.f0.csv")
    write_wav(Audio(np.zeros(32000, np.float32), 16000), folder / "silent.wav")
    write_f0_csv(F0Track(np.zeros(300), np.zeros(300)), folder / "unvoiced.f0.csv")
    whole = (folder / "good.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.wav").write_bytes(b"")
    (folder / "words.f0.csv").write_text("time_s,frequency_hz,voicing\n0,a,1\n0.01,220,1\n")
    return folder


def csvs_in(folder: Path) -> list[str]:
    """Names of the melodies in a folder; beside them lies a note of the tracker."""
    return sorted(path.name for path in folder.glob("*.csv"))


UNUSABLE = {
    "missing.f0.csv": "does not exist",
    "silent.wav": "is silent",
    "truncated.wav": "is truncated",
    "unvoiced.f0.csv": "only 0.0 s of the hum is voiced",
    "words.f0.csv": "three numbers",
}


def results_of(done: Done) -> list[dict]:
    assert done.code == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def commands(command=None, path=()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that help pages list: the words that call it, and itself."""
    command = command or typer.main.get_command(app)
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from commands(child, (*path, name))


def parsed(line: str) -> tuple[Any, dict]:
    """The function that a command line runs, and its arguments."""
    command, arguments = typer.main.get_command(app), line.split()
    while hasattr(command, "commands"):
        command = command.commands[arguments.pop(0)]
    context = command.make_context("qbhkit", arguments)
    return inspect.unwrap(command.callback), context.params


class TestHelp:
    def test_every_command_shows_an_example_and_no_former_name(self, run):
        former = re.compile(
            r"crossfold|convert-original|\bhear\b|\bperform\b|--(first|together|only-start|start)\b"
        )
        assert former.search("--start START")
        every = [path for path, _ in commands() if path]
        assert len(every) > 25
        for words in every:
            code, out, err = run(*words, "--help")
            example = out.split("example:\n")[1].strip()
            assert example.startswith(f"qbhkit {' '.join(words)}")
            assert (code, err, former.search(out)) == (0, "", None)

    def test_every_option_and_argument_is_described(self):
        params = [
            (*path, param.name)
            for path, one in commands()
            for param in one.params
            if not param.help
        ]
        assert params == []

    def test_version(self, run):
        import qbhkit

        assert run("--version").out == f"qbhkit {qbhkit.__version__}\n"


class TestUsage:
    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("", ["Missing command", "See 'qbhkit --help'"]),
            ("catalogue burn", ["'burn'", "See 'qbhkit catalogue --help'"]),
            ("search --catalogue c", ["QUERY", "See 'qbhkit search --help'"]),
            ("search q", ["'--catalogue'"]),
            ("search q --catalogue c -k 0", ["-k must be at least 1"]),
            ("search q --catalogue c --tracker ear", ["'ear' is not one of 'swift-f0'"]),
            ("search q --catalogue c --s", ["--s "]),  # --save-match or --schema
            ("catalogue build oneills1850 --out c --workers 2 --scheduler x:1", ["--scheduler"]),
        ],
    )
    def test_a_mistake_gets_one_line(self, run, line, words):
        assert_refused(run(*line.split()), *words)

    @pytest.mark.parametrize(
        ("short", "long"),
        [
            ("search a --cat c --js", "search a --catalogue c --json"),
            ("search a --cat=c --tr=pyin", "search a --catalogue=c --tracker=pyin"),
            ("catalogue build a --o c -- --fi", "catalogue build a --out c -- --fi"),
        ],
    )
    def test_options_may_be_abbreviated(self, short, long):
        assert parsed(short) == parsed(long)

    def test_the_rest_of_a_benchmark_is_its_own(self, run):
        done = run("bench", "hums", "--help")
        assert done.code == 0
        assert "--subset" in done.out
        _, given = parsed("bench hums --subset 3 --at 0.5 -- x")
        assert given["rest"] == ["--subset", "3", "--at", "0.5", "--", "x"]


class TestFormerNames:
    """Commands and options of version 1.0 still work; only the present names are documented."""

    @pytest.mark.parametrize(
        ("former", "present"),
        [
            ("catalogue build a --out c --first 3", "catalogue build a --out c --limit 3"),
            ("search a b --catalogue c --together", "search a b --catalogue c --takes"),
            (
                "crossfold best --out o --start=stage1 --only-start --stress",
                "cross-validate best --out o --init-from=stage1 --no-finetune --stress",
            ),
            ("weights convert-original f --out o", "weights import-checkpoint f --out o"),
            ("data hear pop909 --songs 3", "data transcribe pop909 --songs 3"),
            ("data perform --count 3", "data render --count 3"),
        ],
    )
    def test_they_ask_for_the_same(self, former, present):
        assert parsed(former) == parsed(present)


class TestMelody:
    def test_a_csv_is_as_good_a_query_as_its_recording(self, run, hums, catalogue, tmp_path):
        run("melody", hums / "good.wav", "--out", tmp_path, "--tracker", "swift-f0")
        assert csvs_in(tmp_path) == ["good.f0.csv"]
        done = run(
            "search", hums / "good.wav", tmp_path / "good.f0.csv",
            "--catalogue", catalogue, "--json",
        )  # fmt: skip
        wav, table = results_of(done)
        assert wav["voiced_s"] == pytest.approx(table["voiced_s"], abs=0.15)  # faint ends of notes
        assert wav["results"][0]["song_id"] == table["results"][0]["song_id"] == TRUTH
        assert wav["results"][0]["score"] == pytest.approx(table["results"][0]["score"], abs=0.03)

    def test_folders_are_searched_throughout(self, run, hums, tmp_path):
        source = tmp_path / "in"
        (source / "deep" / "er").mkdir(parents=True)
        shutil.copy(hums / "good.wav", source / "deep" / "er" / "00001.wav")
        shutil.copy(hums / "good.wav", source / "A.B.WAV")
        (source / "notes.txt").write_text("not audio")
        done = run("melody", source, "--out", tmp_path / "out", "--workers", 1)
        assert (done.code, done.err) == (0, "")
        assert csvs_in(tmp_path / "out") == ["00001.f0.csv", "A.B.f0.csv"]

    def test_what_is_there_is_kept_and_said(self, run, hums, tmp_path):
        shutil.copy(hums / "good.wav", tmp_path / "again.wav")
        options = ["--out", tmp_path / "f0", "--tracker", "swift-f0", "--workers", 1]
        assert run("melody", hums / "good.wav", *options).err == ""
        written = (tmp_path / "f0" / "good.f0.csv").stat().st_mtime_ns
        done = run("melody", hums / "good.wav", tmp_path / "again.wav", *options)
        assert (done.code, done.err) == (0, "1 of 2 were there already\n")
        assert (tmp_path / "f0" / "good.f0.csv").stat().st_mtime_ns == written
        assert csvs_in(tmp_path / "f0") == ["again.f0.csv", "good.f0.csv"]

    def test_silence_is_an_unvoiced_melody(self, run, hums, tmp_path):
        assert run("melody", hums / "silent.wav", "--out", tmp_path).code == 0
        assert not read_f0_csv(tmp_path / "silent.f0.csv").voiced.any()

    def test_another_tracker_is_used(self, run, hums, tmp_path):
        assert run("melody", hums / "good.wav", "--out", tmp_path, "--tracker", "praat").code == 0
        assert read_f0_csv(tmp_path / "good.f0.csv").voiced.mean() > 0.5

    def test_one_stem_twice_is_refused_with_both_names(self, run, hums, tmp_path):
        (tmp_path / "sub").mkdir()
        first = shutil.copy(hums / "good.wav", tmp_path / "same.wav")
        second = shutil.copy(hums / "good.wav", tmp_path / "sub" / "same.flac")
        done = run("melody", first, second, "--out", tmp_path / "out")
        assert_refused(done, first, second)
        assert not (tmp_path / "out").exists()

    def test_a_folder_without_audio(self, run, tmp_path):
        (tmp_path / "folder.wav").mkdir()
        assert_refused(run("melody", tmp_path, "--out", tmp_path / "out"), "holds no audio files")

    def test_a_failing_file_in_a_folder_is_reported_at_the_end(self, run, hums, tmp_path):
        folder = tmp_path / "in"
        folder.mkdir()
        for name in ("empty.wav", "good.wav", "truncated.wav"):
            shutil.copy(hums / name, folder)
        one = ("--workers", 1)
        done = run("melody", folder, "--out", tmp_path / "out", *one)
        assert done.code == 0
        assert csvs_in(tmp_path / "out") == ["good.f0.csv"]
        assert len(done.err.splitlines()) == 3
        assert str(folder / "empty.wav") in done.err
        assert str(folder / "truncated.wav") in done.err
        assert "2 of 3 failed, the others are done" in done.err.splitlines()[-1]
        named = run(
            "melody", folder / "empty.wav", folder / "good.wav", "--out", tmp_path / "2", *one
        )
        assert named.code == 2
        assert (tmp_path / "2" / "good.f0.csv").is_file()

    def test_the_lead_melody_has_a_tracker_of_its_own(self, run, hums, tmp_path):
        refused = run("melody", hums / "good.wav", "--out", tmp_path, "--target", "lead",
                      "--tracker", "pyin")  # fmt: skip
        assert_refused(refused, "pyin tracks voices only")
        done = run("melody", hums / "good.wav", "--out", tmp_path, "--target", "lead")
        assert done.code == 0, done.err
        assert read_f0_csv(tmp_path / "good.f0.csv").voiced.mean() > 0.5
        assert "crnn-lite-lead@" in (tmp_path / "melody.json").read_text("utf-8")

    def test_a_folder_that_cannot_be_written(self, run, hums, tmp_path):
        (tmp_path / "file").write_text("in the way")
        done = run("melody", hums / "good.wav", "--out", tmp_path / "file")
        assert_refused(done, tmp_path / "file")


class TestCatalogueBuild:
    def test_every_kind_of_source(self, run, hums, tmp_path, write_midi):
        folder = tmp_path / "songs"
        write_midi(folder / "deep" / "00001.mid", NOTES)
        write_midi(folder / "plain.MIDI", NOTES + np.array([0, 0, 1.0]))
        (folder / "one.abc").write_text("X:1\nT:Scale\nK:C\nL:1/4\nCDEFGABc|cBAGFEDC|\n")
        (folder / "book.abc").write_text(
            "X:3\nT:Up\nK:C\nCDEFGABc|\n\nX:7\nT:Down\nK:C\ncBAGFEDC|\n"
        )
        write_f0_csv(sung(NOTES, end_s=2.5), folder / "track.f0.csv")
        shutil.copy(hums / "good.wav", folder / "recording.wav")
        extra = write_midi(tmp_path / "007.mid", NOTES)
        done = run("catalogue", "build", folder, extra, "--out", tmp_path / "c")
        assert done.code == 0, done.err
        assert "8 songs" in done.out
        opened = open_catalogue(tmp_path / "c")
        titles = {entry["id"]: entry["title"] for entry in opened.songs}
        assert titles == {
            "00001": "00001", "007": "007", "plain": "plain", "one": "Scale", "book-3": "Up",
            "book-7": "Down", "track": "track", "recording": "recording",
        }  # fmt: skip
        assert opened.contours[opened.number["recording"]].voiced_s > 3
        again = run("catalogue", "build", folder, extra, "--out", tmp_path / "c")
        assert "8 songs were there already" in again.out

    def test_tags_give_titles(self, run, hums, tmp_path):
        import mutagen
        import soundfile

        samples, rate = soundfile.read(hums / "good.wav")
        soundfile.write(tmp_path / "x.flac", samples, rate)
        tags = mutagen.File(tmp_path / "x.flac", easy=True)
        tags["title"], tags["artist"] = ["Émilie"], ["Nobody"]
        tags.save()
        assert run("catalogue", "build", tmp_path / "x.flac", "--out", tmp_path / "c").code == 0
        assert open_catalogue(tmp_path / "c").songs[0]["title"] == "Nobody - Émilie"

    def test_one_id_twice_is_refused_with_both_names(self, run, tmp_path, write_midi):
        first = write_midi(tmp_path / "a" / "NAME.mid", NOTES)
        second = tmp_path / "a" / "NAME.f0.csv"
        write_f0_csv(sung(NOTES, end_s=2.5), second)
        done = run("catalogue", "build", tmp_path / "a", "--out", tmp_path / "c")
        assert_refused(done, first, second, "the id NAME")
        assert not (tmp_path / "c").exists()

    def test_nothing_to_index(self, run, tmp_path):
        (tmp_path / "readme.txt").write_text("words")
        assert_refused(run("catalogue", "build", tmp_path, "--out", tmp_path / "c"), tmp_path)
        done = run("catalogue", "build", tmp_path / "readme.txt", "--out", tmp_path / "c")
        assert_refused(done, tmp_path / "readme.txt")

    @pytest.mark.parametrize("name", ["silent.wav", "words.f0.csv"])
    def test_bad_songs(self, run, hums, tmp_path, name):
        done = run("catalogue", "build", hums / name, "--out", tmp_path / "c")
        assert_refused(done, hums / name, UNUSABLE[name])
        assert not (tmp_path / "c" / "manifest.json").exists()

    @pytest.fixture
    def mixed(self, hums, tmp_path, write_midi):
        folder = tmp_path / "mixed"
        write_midi(folder / "good.mid", NOTES)
        write_midi(folder / "fine.mid", NOTES + np.array([0, 0, 3.0]))
        (folder / "bad.mid").write_bytes(b"rubbish")
        shutil.copy(hums / "silent.wav", folder)
        return folder

    def test_failing_files_in_a_folder_are_reported_at_the_end(self, run, mixed, tmp_path):
        done = run("catalogue", "build", mixed, "--out", tmp_path / "c")
        assert done.code == 0
        lines = done.err.splitlines()
        assert lines[0] == "the same melody under several ids: fine, good"
        assert len(lines) == 4
        assert str(mixed / "bad.mid") in lines[1]
        assert str(mixed / "silent.wav") in lines[2]
        assert "2 of 4 failed, the others are done" in lines[3]
        assert [entry["id"] for entry in open_catalogue(tmp_path / "c").songs] == ["fine", "good"]

    def test_a_failing_file_that_was_named(self, run, mixed, tmp_path):
        bad = mixed / "bad.mid"
        done = run("catalogue", "build", mixed / "good.mid", bad, "--out", tmp_path / "c")
        assert done.code == 2
        assert str(bad) in done.err
        assert [entry["id"] for entry in open_catalogue(tmp_path / "c").songs] == ["good"]

    def test_a_file_that_may_not_be_read_does_not_stop_the_others(
        self, run, mixed, hums, tmp_path, monkeypatch
    ):
        shutil.copy(hums / "good.wav", mixed / "locked.wav")
        real = open

        def refusing(path, *rest, **options):
            if str(path).endswith("locked.wav"):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *rest, **options)

        for module in ("qbhkit.audio", "qbhkit.storage"):
            monkeypatch.setattr(f"{module}.open", refusing, raising=False)
        done = run("catalogue", "build", mixed, "--out", tmp_path / "c")
        assert done.code == 0
        assert f"{mixed / 'locked.wav'} cannot be read (Permission denied)." in done.err
        assert len(open_catalogue(tmp_path / "c").songs) == 2

    def test_the_first_songs_alone(self, run, mixed, tmp_path):
        path = tmp_path / "c"
        assert run("catalogue", "build", mixed, "--out", path).code == 0
        everything = [song["id"] for song in open_catalogue(path).songs]
        assert run("catalogue", "build", mixed, "--out", path, "--limit", 1).code == 0
        assert [song["id"] for song in open_catalogue(path).songs] == everything[:1]
        done = run("catalogue", "build", mixed, "--out", path, "--limit", 0)
        assert_refused(done, "--limit 0 leaves no song: ask for at least one.")
        done = run("catalogue", "build", mixed, "--out", path, "--held-out")
        assert_refused(done, f"{mixed} has no split")
        assert len(open_catalogue(path).songs) == 1

    def test_a_folder_that_cannot_be_written(self, run, mixed, tmp_path):
        (tmp_path / "file").write_text("in the way")
        for out in (tmp_path / "file", tmp_path / "file" / "c"):
            done = run("catalogue", "build", mixed / "good.mid", "--out", out)
            assert_refused(done, tmp_path / "file")


class TestSearch:
    def test_json_is_the_contract_and_nothing_else(self, run, hums, catalogue):
        queries = [hums / "good.wav", hums / "late.f0.csv"]
        done = run("search", *queries, "--catalogue", catalogue, "--json")
        assert done.err == ""
        assert done.out.endswith("\n")
        lines = results_of(done)
        assert [line["query"] for line in lines] == [str(query) for query in queries]
        for line in lines:
            assert list(line) == ["query", "voiced_s", "results", "confident"]
            assert line["confident"] is True
            assert 2 < line["voiced_s"] < 10
            assert len(line["results"]) == 10
            for row in line["results"]:
                assert list(row) == [
                    "song_id", "title", "score", "start_s", "end_s", "confidence", "tempo_ratio",
                    "transposition_st", "vote", "distance_st", "instrumental",
                ]  # fmt: skip
                assert 0 <= row["confidence"] <= 1
                assert isinstance(row["song_id"], str)
                assert 0 <= row["start_s"] < row["end_s"]
            scores = [row["score"] for row in line["results"]]
            assert scores == sorted(scores, reverse=True)
        assert [line["results"][0]["song_id"] for line in lines] == [TRUTH, LATE]

    def test_text_shows_the_same_answers(self, run, hums, catalogue):
        query = hums / "good.wav"
        done = run("search", query, "--catalogue", catalogue, "-k", 3)
        lines = done.out.splitlines()
        rows = results_of(run("search", query, "--catalogue", catalogue, "-k", 3, "--json"))[0]
        assert lines[0] == f"{query}: {rows['voiced_s']:.1f} s voiced"
        assert len(lines) == 4
        for rank, (line, row) in enumerate(zip(lines[1:], rows["results"], strict=True), 1):
            assert line.split()[:2] == [str(rank), f"{row['score']:.3f}"]
            assert f"{row['start_s']:.1f} to {row['end_s']:.1f} s" in line
            assert line.endswith(f"{row['title']}  [{row['song_id']}]")

    def test_a_hum_of_no_song_is_not_believed(self, run, catalogue, tmp_path):
        wander = np.repeat(np.random.default_rng(5).uniform(100, 300, 16), 50)  # of quarter tones
        write_f0_csv(F0Track(wander, np.ones(len(wander))), tmp_path / "wander.f0.csv")
        arguments = ["search", tmp_path / "wander.f0.csv", "--catalogue", catalogue, "-k", 2]
        line = results_of(run(*arguments, "--json"))[0]
        assert line["confident"] is False
        assert len(line["results"]) == 2
        assert "no confident match" in run(*arguments).out

    def test_other_methods_say_what_they_know(self, run, hums, catalogue):
        arguments = ["search", hums / "good.wav", "--catalogue", catalogue, "--method", "vector"]
        line = results_of(run(*arguments, "--json"))[0]
        assert list(line) == ["query", "voiced_s", "results"]
        assert line["results"][0]["song_id"] == TRUTH
        assert line["results"][0]["confidence"] is None
        assert line["results"][0]["score"] == line["results"][0]["vote"]

    def test_end_to_end(self, run, hums, stage1_catalogue):
        options = ["--catalogue", stage1_catalogue, "--method", "end-to-end"]
        line = results_of(run("search", hums / "good.wav", *options, "--json"))[0]
        assert line["results"][0]["song_id"] == TRUTH
        assert line["results"][0]["tempo_ratio"] > 0
        assert line["confident"] in (True, False)
        pitch = results_of(
            run("search", hums / "good.wav", *options[:2], "--weights", "stage1", "--json")
        )[0]
        assert pitch["results"][0]["vote"] != line["results"][0]["vote"]
        refused = run("search", hums / "late.f0.csv", *options)
        assert_refused(refused, "late.f0.csv", "holds no sound")
        refused = run("search", hums / "good.wav", *options, "--tracker", "pyin")
        assert_refused(refused, "leave --tracker pyin out")
        refused = run("search", hums / "good.wav", *options, "--weights", "stage1")
        assert_refused(refused, "no method 'end-to-end' with these weights")

    def test_end_to_end_in_a_catalogue_of_another_teacher(self, run, hums, catalogue):
        options = ["--catalogue", catalogue, "--method", "end-to-end"]
        assert_refused(run("search", hums / "good.wav", *options), catalogue, "best-", "stage1-")

    def test_takes_of_one_tune_get_one_answer(self, run, hums, catalogue):
        queries = [hums / "late.f0.csv", hums / "late.f0.csv"]
        options = ["--catalogue", catalogue, "--json"]
        (line,) = results_of(run("search", *queries, "--takes", *options))
        alone = results_of(run("search", queries[0], *options))[0]
        assert line["query"] == f"{queries[0]}, {queries[1]}"
        assert line["voiced_s"] == pytest.approx(2 * alone["voiced_s"])
        for both, one in zip(line["results"], alone["results"], strict=True):
            assert both["song_id"] == one["song_id"]
            assert both["score"] == pytest.approx(one["score"], abs=1e-5)

    def test_matches_can_be_played(self, run, hums, catalogue, tmp_path):
        folder = tmp_path / "matches"
        done = run(
            "search", hums / "good.wav", "--catalogue", catalogue, "-k", 2, "--save-match", folder,
            "--json",
        )  # fmt: skip
        rows = results_of(done)[0]["results"]
        assert sorted(path.name for path in folder.iterdir()) == [
            "good.hum.wav", "good.match1.wav", "good.match2.wav",
        ]  # fmt: skip
        for rank, row in enumerate(rows, 1):
            audio = load(folder / f"good.match{rank}.wav")
            assert audio.duration_s == pytest.approx(row["end_s"] - row["start_s"], abs=0.5)
        matched = run("search", folder / "good.match1.wav", "--catalogue", catalogue, "--json")
        assert results_of(matched)[0]["results"][0]["song_id"] == TRUTH

    def test_saved_matches_replace_no_recording(self, run, hums, catalogue, tmp_path):
        mine = tmp_path / "good.wav"
        mine.write_bytes((hums / "good.wav").read_bytes())
        asked = ("--catalogue", catalogue, "--save-match")
        assert_refused(run("search", mine, *asked, tmp_path), mine, "another --save-match folder")
        assert mine.read_bytes() == (hums / "good.wav").read_bytes()
        done = run("search", mine, hums / "good.wav", *asked, tmp_path / "matches")
        assert_refused(done, mine, hums / "good.wav", "rename one")

    def test_start_reports_only_windows_at_the_first_note(
        self, run, catalogue, song_notes, tmp_path
    ):
        begin_s = song_notes[LATE][0, 0] + 6
        write_f0_csv(
            sung(song_notes[LATE], begin_s=begin_s, end_s=begin_s + 10), tmp_path / "q.csv"
        )
        common = ["search", tmp_path / "q.csv", "--catalogue", catalogue, "-k", 1000, "--json"]
        start = results_of(run(*common, "--anchor", "start"))[0]["results"]
        assert len(start) == len(song_notes)
        for row in start:
            first_s = song_notes[row["song_id"]][0, 0]
            assert row["start_s"] == pytest.approx(first_s, abs=0.11)
        assert {row["start_s"] > 3 for row in start} == {True, False}
        anywhere = results_of(run(*common))[0]["results"]
        assert anywhere == results_of(run(*common, "--anchor", "anywhere"))[0]["results"]
        assert anywhere[0]["song_id"] == LATE
        assert anywhere[0]["start_s"] == pytest.approx(begin_s, abs=2.5)
        score = {row["song_id"]: row["score"] for row in start}
        assert score[LATE] < anywhere[0]["score"] - 0.1

    def test_a_song_shorter_than_every_window_is_found(self, run, catalogue, song_notes, tmp_path):
        write_f0_csv(sung(song_notes["short"], end_s=2.4), tmp_path / "q.csv")
        asked = ("search", tmp_path / "q.csv", "--catalogue", catalogue, "--json", "--anchor")
        for anchor in ("start", "anywhere"):
            best = results_of(run(*asked, anchor))[0]["results"][0]
            assert best["song_id"] == "short"
            assert (best["start_s"], best["end_s"]) == (0, pytest.approx(2.4, abs=0.11))

    @pytest.mark.parametrize("name", ["missing.f0.csv", "truncated.wav", "unvoiced.f0.csv"])
    def test_bad_queries(self, run, hums, catalogue, name):
        done = run("search", hums / name, "--catalogue", catalogue, "--json")
        assert_refused(done, hums / name, UNUSABLE[name])

    def test_a_bad_query_does_not_stop_the_good_ones(self, run, hums, catalogue):
        queries = [hums / name for name in ("silent.wav", "good.wav", "unvoiced.f0.csv")]
        done = run("search", *queries, "--catalogue", catalogue, "--json")
        assert done.code == 2
        assert [json.loads(line)["query"] for line in done.out.splitlines()] == [str(queries[1])]
        assert len(done.err.splitlines()) == 2

    def test_weights_of_another_model(self, run, hums, catalogue, tmp_path):
        stored = load_weights("best")
        arrays = {name: value * np.float32(1.01) if value.ndim == 3 else value
                  for name, value in stored.arrays.items()}  # fmt: skip
        save_weights(tmp_path / "other.safetensors", arrays, stored.config)
        query, other = hums / "late.f0.csv", tmp_path / "other.safetensors"
        done = run("search", query, "--catalogue", catalogue, "--weights", other)
        assert_refused(done, catalogue, "was made by the model best-", "not other-")
        assert_refused(
            run("search", query, "--catalogue", catalogue, "--weights", "none"), "'none'"
        )

    def test_names_in_any_alphabet(self, run, hums, tmp_path, write_midi):
        write_midi(tmp_path / "songs" / "曲 é.mid", NOTES)
        raw = os.fsencode(tmp_path / "songs") + b"/caf\xe9.wav"  # a name that is not UTF-8
        shutil.copy(hums / "silent.wav", raw)
        built = run("catalogue", "build", tmp_path / "songs", "--out", tmp_path / "c")
        assert built.code == 0
        assert "1 of 2 failed" in built.err
        query = shutil.copy(hums / "late.f0.csv", os.fsencode(tmp_path) + b"/q\xe9.f0.csv")
        command = [sys.executable, "-m", "qbhkit.cli", "search", query, "--catalogue"]
        done = subprocess.run(
            [*command, tmp_path / "c", "--json"],
            capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        line = json.loads(done.stdout)
        assert os.fsencode(line["query"]) == query
        assert line["results"][0]["song_id"] == "曲 é"


@pytest.fixture
def copy(catalogue, tmp_path):
    return Path(shutil.copytree(catalogue, tmp_path / "copy"))


class TestCatalogueIndex:
    def test_an_index_is_built_and_searched(self, run, hums, copy):
        done = run("catalogue", "index", copy)
        assert done.code == 0
        assert "windows in the index faiss" in done.out
        lines = [
            run("search", hums / "late.f0.csv", "--catalogue", copy, "--json", "--index", name).out
            for name in ("exact", "faiss")
        ]
        assert lines[0] == lines[1]
        assert run("catalogue", "verify", copy).code == 0

    def test_no_server(self, run, hums, copy, monkeypatch, tmp_path):
        monkeypatch.setenv("QBHKIT_POSTGRES", f"host={tmp_path} user=someone dbname=songs")
        for command in (
            ["catalogue", "index", copy, "--kind", "postgres"],
            ["search", hums / "late.f0.csv", "--catalogue", copy, "--index", "postgres"],
        ):
            assert_refused(run(*command), "QBHKIT_POSTGRES", "refused the connection")


class TestDamagedCatalogue:
    @pytest.mark.parametrize(
        ("name", "content", "words"),
        [
            ("manifest.json", None, "is unfinished"),
            ("shards/*", b"cut short", "is damaged"),
        ],
    )
    def test_a_search_names_the_file(self, run, hums, copy, name, content, words):
        (file,) = list(copy.glob(name))[:1]
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        done = run("search", hums / "late.f0.csv", "--catalogue", copy, "--json")
        assert_refused(done, copy if words == "is unfinished" else file, words)


class TestEvaluate:
    @pytest.fixture
    def table(self, hums, tmp_path):
        """Write Q.csv beside a copy of two queries; rows are lists of cells."""

        def write(*rows, header=("path", "song_id", "singer")):
            for name in ("good.wav", "late.f0.csv"):
                (tmp_path / "deep").mkdir(exist_ok=True)
                shutil.copy(hums / name, tmp_path / "deep")
            with open(tmp_path / "Q.csv", "w", newline="") as stream:
                csv.writer(stream).writerows([header, *rows])
            return tmp_path / "Q.csv"

        return write

    @pytest.fixture
    def evaluate(self, run, catalogue, tmp_path):
        def evaluate(queries, *options):
            done = run(
                "evaluate", "--queries", queries, "--catalogue", catalogue,
                "--out", tmp_path / "out" / "R.json", *options,
            )  # fmt: skip
            if done.code:
                assert not (tmp_path / "out").exists()
                return done, {}
            return done, json.loads((tmp_path / "out" / "R.json").read_text("utf-8"))

        return evaluate

    def test_the_result(self, evaluate, table, hums):
        queries = table(
            ["deep/good.wav", TRUTH, "ann"],  # relative to the CSV
            [hums / "late.f0.csv", LATE, "ann"],  # absolute
            ["deep/late.f0.csv", TRUTH, "bob"],  # a wrong label: hardly found
        )
        done, result = evaluate(queries)
        assert done.code == 0
        assert done.err == ""
        assert result["n"] == 3
        assert result["ranks"][:2] == [1, 1]
        assert result["ranks"][2] > 1
        assert result["top1"] == pytest.approx(2 / 3)
        assert result["per_singer"]["ann"]["top1"] == 1
        assert result["per_song"][LATE]["n"] == 1
        assert "closed set of 61 songs" in result["comparable_to"]
        assert "0.667" in done.out

    def test_methods_may_be_repeated(self, evaluate, table):
        queries = table(["deep/good.wav", TRUTH], ["deep/late.f0.csv", LATE],
                        header=("path", "song_id"))  # fmt: skip
        done, result = evaluate(
            queries, "--method", "dtw", "--method", "vector", "--method", "linear-scaling",
            "--method", "dtw", "--anchor", "start",
        )  # fmt: skip
        assert done.code == 0
        assert list(result["methods"]) == ["dtw", "vector", "linear-scaling"]
        assert [block["ranks"] for block in result["methods"].values()] == [[1, 1]] * 3
        assert result["anchor"] == "start"
        assert [line.split()[0] for line in done.out.splitlines()[2:]] == list(result["methods"])

    def test_a_result_calibrates_weights(self, run, evaluate, table, tmp_path):
        queries = table(
            *[["deep/good.wav", TRUTH]] * 4, ["deep/late.f0.csv", LATE], header=("path", "song_id")
        )
        _, result = evaluate(queries)
        assert 0 < result["calibration"]["threshold"] < 1
        mine = tmp_path / "mine.safetensors"
        shutil.copy(asset("weights/stage1.safetensors"), mine)
        before = load_weights(str(mine))
        (tmp_path / "result.json").write_text(json.dumps(result))
        assert run("weights", "calibrate", mine, tmp_path / "result.json").code == 0
        after = load_weights(str(mine))
        assert after.config["calibration"] == result["calibration"]
        assert after.sha256 == before.sha256  # catalogues stay good
        for wrong in ({"ranks": []}, {"calibration": {"threshold": "high"}}, []):
            (tmp_path / "wrong.json").write_text(json.dumps(wrong))
            assert_refused(run("weights", "calibrate", mine, tmp_path / "wrong.json"), "wrong.json")
        assert load_weights(str(mine)).config == after.config

    def test_an_id_that_looks_like_a_number_stays_text(self, evaluate, table):
        done, _ = evaluate(table(["deep/good.wav", "4", ""]))
        assert_refused(done, "Q.csv names the song 4")

    def test_a_table_that_is_not_there_or_not_text(self, evaluate, tmp_path, hums):
        assert_refused(evaluate(tmp_path / "Q.csv")[0], tmp_path / "Q.csv", "does not exist")
        assert_refused(evaluate(hums / "good.wav")[0], hums / "good.wav")
        assert_refused(evaluate(tmp_path)[0], tmp_path)

    def test_a_result_that_cannot_be_written(self, run, catalogue, table, tmp_path):
        queries = table(["deep/late.f0.csv", LATE, ""])
        done = run(
            "evaluate", "--queries", queries, "--catalogue", catalogue,
            "--out", tmp_path / "Q.csv" / "R.json",
        )  # fmt: skip
        assert_refused(done, tmp_path / "Q.csv")


class TestData:
    def test_list_says_where_from_which_terms_and_how_to_get_it(self, run, tmp_path, write_midi):
        from qbhkit.corpora import CORPORA

        write_midi(tmp_path / "mirex-essen-2000" / "1.mid", NOTES)
        done = run("data", "list", "--data", tmp_path)
        assert (done.code, done.err) == (0, "")
        for info in CORPORA.values():
            entry = done.out.split(f"{info.name}: {info.what}")[1]
            assert f"terms: {info.terms}" in entry
            assert f"from:  {info.where}" in entry
            assert f"get:   {info.cure}" in entry
        assert "(here, 1 files)" in done.out.split("mirex-essen-2000: ")[1].splitlines()[0]
        assert "(not here)" in done.out.split("mir-qbsh: ")[1].splitlines()[0]
        assert "(here, 6 files)" in done.out.split("airdsAirs: ")[1].splitlines()[0]

    def test_fetch_of_what_is_not_offered(self, run, tmp_path):
        assert_refused(run("data", "fetch", "nothing"), "'nothing'")
        assert_refused(run("data", "fetch", "ioacas"), "ioacas is not offered for download")

    def test_shards_of_a_folder(self, run, tmp_path, write_midi):
        for name in ("one", "two"):
            write_midi(tmp_path / "songs" / f"{name}.mid", NOTES)
        done = run("data", "shards", tmp_path / "songs", "--out", tmp_path / "shards")
        assert done.code == 0
        assert done.out.startswith(f"{tmp_path / 'shards'}: 2 songs, 2 tunes, ")

    def test_verify(self, run, tmp_path, write_midi):
        folder = tmp_path / "mirex-essen-2000"
        write_midi(folder / "1.mid", NOTES)
        done = run("data", "verify", "mirex-essen-2000", "--data", tmp_path)
        assert done.out.startswith("mirex-essen-2000: 1 songs in 1 files\n0 groups of near-dup")
        (folder / "2.mid").write_bytes(b"broken")
        done = run("data", "verify", "mirex-essen-2000", "--data", tmp_path)
        assert done.code == 2
        assert str(folder / "2.mid") in done.err
        assert_refused(run("data", "verify", "nothing"), "'nothing'")

    def test_transcribe_writes_what_training_reads(self, run, tmp_path, write_midi, monkeypatch):
        import symusic

        monkeypatch.setenv("QBHKIT_CACHE", str(tmp_path / "cache"))
        path = write_midi(tmp_path / "pop909" / "001" / "001.mid", NOTES)
        score = symusic.Score(path)
        piano = symusic.Track(name="PIANO")
        piano.notes.append(symusic.Note(0, 4 * 480, 48, 80))
        score.tracks.append(piano)
        score.dump_midi(path)
        asked = ("pop909", "--data", tmp_path, "--level-db", "-1", "5")
        transcribe = ("data", "transcribe", *asked)
        out = tmp_path / "cache" / "pop909-transcribed"
        assert run(*transcribe, "--seconds", "3") == Done(0, f"{out}: 1 melodies\n", "")
        assert csvs_in(out) == ["001.f0.csv"]
        assert read_f0_csv(out / "001.f0.csv").duration_s == pytest.approx(3.0)
        assert json.loads((out / "transcribed.json").read_text())["level_db"] == [-1.0, 5.0]
        done = run("data", "hear", *asked, "--seconds", "3", "--songs", "1")
        assert done.out == f"{out}: 1 melodies (1 were there already)\n"
        done = run("data", "list", "--data", tmp_path)
        assert "(here, 1 files)" in done.out.split("pop909-transcribed: ")[1].splitlines()[0]
        assert_refused(run(*transcribe, "--seconds", "4"), out, "made with other settings")
        (tmp_path / "pop909" / "001" / "001.mid").write_bytes(b"rubbish")
        done = run(*transcribe, "--out", tmp_path / "new")
        assert_refused(done, "001.mid is not a readable MIDI file")

    def test_transcribe_refuses_what_it_cannot_use(self, run, tmp_path):
        assert_refused(run("data", "transcribe", "pop909"), "clone the POP909")
        assert_refused(run("data", "transcribe", "ioacas"), "ioacas has no split")
        assert_refused(run("data", "transcribe", "miscFolk"), "miscFolk has no accompaniment")
        assert_refused(run("data", "transcribe", "pop909", "--seconds", "0"), "at least 1 s")
        assert_refused(
            run("data", "transcribe", "pop909", "--level-db", "3", "1"), "lower one first"
        )
        assert_refused(run("data", "transcribe", "pop909", "--songs", "-1"), "At least one song")

    def test_pairs_are_of_one_year_or_of_all(self, run, hums, tmp_path, song_notes, write_midi):
        corpus = tmp_path / "mir-qbsh"
        write_midi(corpus / "midiFile" / f"{TRUTH}.mid", song_notes[TRUTH])
        for year in ("year2004a", "year2009"):
            hum = corpus / "waveFile" / year / "person00001" / f"{TRUTH}.wav"
            hum.parent.mkdir(parents=True)
            shutil.copy(hums / "good.wav", hum)
        shutil.copy(hums / "silent.wav", hum.with_name("silent.wav"))
        (corpus / "midiFile" / "silent.mid").write_bytes(
            (corpus / "midiFile" / f"{TRUTH}.mid").read_bytes()
        )
        pairs = ("data", "pairs", "--data", tmp_path, "--out", tmp_path / "pairs.csv")
        done = run(*pairs, "--year", "year2009")
        assert (done.code, done.out) == (0, f"{tmp_path / 'pairs.csv'}: 1 hums\n")
        assert str(hum.with_name("silent.wav")) in done.err  # no pair, and it is said
        (pair,) = read_pairs(tmp_path / "pairs.csv")
        assert (pair.hum, pair.song_id) == (hum, TRUTH)
        assert pair.start_s < 0.3
        assert 4 < pair.end_s < 12
        assert run(*pairs).code == 0
        years = [pair.hum.parts[-3] for pair in read_pairs(tmp_path / "pairs.csv")]
        assert years == ["year2004a", "year2009"]
        assert_refused(run(*pairs, "--year", "year1999"), "year1999")


class TestTrainAndBench:
    def test_an_unknown_configuration(self, run, tmp_path):
        assert_refused(run("train", "nothing", "--out", tmp_path), "nothing is neither", "tiny")

    def test_pairs_must_name_the_songs_of_the_configuration(self, run, hums, tmp_path, write_midi):
        write_midi(tmp_path / "songs" / "a.mid", NOTES)
        rows = f"hum_path,song_id,start_s,end_s\n{hums / 'good.wav'},b,0,8\n"
        (tmp_path / "p.csv").write_text(rows)  # found beside the configuration
        songs = json.dumps([str(tmp_path / "songs")])
        config = f"corpora: [miscFolk]\npairs: p.csv\nsongs: {songs}\nhums: {{share: 0.5}}\n"
        (tmp_path / "c.yaml").write_text(config)
        done = run("train", tmp_path / "c.yaml", "--out", tmp_path / "out")
        assert done.code == 2
        assert f"{tmp_path / 'p.csv'} names the song b, which is not in 'songs'." in done.err

    def test_an_unknown_benchmark(self, run, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert_refused(run("bench", "nothing"), "'nothing'")


class TestProcess:
    """What only a real process can show."""

    def test_a_reader_that_leaves_early_is_no_error(self):
        done = subprocess.run(
            f'"{sys.executable}" -m qbhkit.cli data list | head -n 1', shell=True,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert len(done.stdout.splitlines()) == 1
        assert done.stderr == ""

    def test_an_interrupt_says_how_to_go_on(self, monkeypatch, run):
        def interrupted(name, data):
            raise KeyboardInterrupt

        monkeypatch.setattr("qbhkit.corpora.open_corpus", interrupted)
        done = run("data", "list")
        assert done.code == 130
        assert "run the same command again" in done.err


class TestRebuilding:
    def test_what_failed_is_tried_again(self, run, hums, tmp_path, monkeypatch):
        folder = tmp_path / "songs"
        folder.mkdir()
        shutil.copy(hums / "silent.wav", folder / "a.wav")
        shutil.copy(asset("hums/demo_1.flac"), folder / "b.flac")
        assert run("catalogue", "build", folder, "--out", tmp_path / "c").code == 0
        monkeypatch.setattr("qbhkit.catalogue.build.refuse_silence", no_refusal)
        done = run("catalogue", "build", folder, "--out", tmp_path / "c")
        assert "holds no melody" in done.err  # tracked again, not remembered as silent
        assert "1 songs were there already" in done.out

    def test_a_stopped_build_does_not_track_recordings_twice(self, run, tmp_path, monkeypatch):
        folder = tmp_path / "songs"
        folder.mkdir()
        for number, name in enumerate("bcd", 1):
            shutil.copy(asset(f"hums/demo_{number}.flac"), folder / f"{name}.flac")
        tracked = []

        def counted(path, rate_hz):
            tracked.append(path.stem)
            if path.stem == "d" and tracked.count("d") == 1:
                raise KeyboardInterrupt
            return load(path, rate_hz)

        monkeypatch.setattr("qbhkit.catalogue.build.load", counted)
        assert run("catalogue", "build", folder, "--out", tmp_path / "c").code == 130
        shutil.copy(asset("hums/demo_2.flac"), folder / "a.flac")  # as c: not tracked either
        assert run("catalogue", "build", folder, "--out", tmp_path / "c").code == 0
        assert tracked == ["b", "c", "d", "d"]
        assert len(open_catalogue(tmp_path / "c").songs) == 4


def no_refusal(audio, path):
    """Let silence pass."""
