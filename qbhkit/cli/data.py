"""``qbhkit data``: list, fetch, verify and prepare corpora."""

import argparse
import os
from typing import TYPE_CHECKING

from qbhkit.cli.terminal import plain, quiet, report_failures, say
from qbhkit.errors import QbhError
from qbhkit.storage import cache_dir, data_dir, sha256_file, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qbhkit.contour import Contour

_SAME_TUNE = 0.8  # tunes that share this much of their note sequences are near-duplicates
_MOST_LISTED = 5


def list_corpora(options: argparse.Namespace) -> int:
    """Run ``qbhkit data list``."""
    from qbhkit.corpora import CORPORA, open_corpus

    data = options.data or data_dir()
    for info in CORPORA.values():
        try:
            state = f"here, {len(open_corpus(info.name, data).files)} files"
        except QbhError:
            state = "not here"
        print(f"{info.name}: {info.what} ({state})")
        print(f"    from:  {info.where}\n    terms: {info.terms}\n    get:   {info.cure}")
    return 0


def fetch_corpus(options: argparse.Namespace) -> int:
    """Run ``qbhkit data fetch``."""
    from qbhkit.corpora import CORPORA
    from qbhkit.corpora.fetch import download, unpack

    info = CORPORA.get(options.name)
    if info is None:
        raise QbhError(f"There is no corpus {options.name!r}; see 'qbhkit data list'.")
    if info.url is None or info.sha256 is None:
        raise QbhError(f"{info.name} is not offered for download: {info.cure}.")
    data = options.data or data_dir()
    archive = data / f"{info.name}.zip"
    download(info.url, archive, info.sha256, progress=not quiet())
    unpack(archive, data / info.name)
    files = sorted(path for path in (data / info.name).rglob("*") if path.is_file())
    sums = {str(path.relative_to(data / info.name)): sha256_file(path) for path in files}
    write_json(data / f"{info.name}.sums.json", sums)
    print(f"{data / info.name}: {len(files)} files")
    return 0


def pairs(options: argparse.Namespace) -> int:
    """Run ``qbhkit data pairs``."""
    from qbhkit.corpora import songs_of
    from qbhkit.corpora.folders import MirQbsh
    from qbhkit.corpora.hum_csv import write_pairs
    from qbhkit.embedding.hum_pairs import find_pairs
    from qbhkit.pitch.trackers import get_tracker

    corpus = MirQbsh((options.data or data_dir()) / "mir-qbsh")
    hums, tracker = corpus.hums(options.year), get_tracker(options.tracker)
    found, failures = find_pairs(hums, songs_of(corpus), tracker, progress=not quiet())
    for failure in failures:
        say(f"qbhkit: {failure.reason}")
    out = options.out or cache_dir() / "pairs.csv"
    write_pairs(found, out)
    print(f"{out}: {len(found)} hums")
    return 0


def transcribe(options: argparse.Namespace) -> int:
    """Run ``qbhkit data transcribe``."""
    from qbhkit.pitch.render_and_transcribe import TranscribeConfig, transcribe_corpus
    from qbhkit.pitch.trackers import default_song_tracker

    config = TranscribeConfig(options.seed, options.seconds, tuple(options.level_db))
    out = options.out or cache_dir() / f"{options.corpus}-transcribed"
    done = transcribe_corpus(
        options.corpus,
        options.data or data_dir(),
        out,
        config,
        options.tracker or default_song_tracker(),
        options.songs,
        progress=not quiet(),
    )
    code = report_failures(done.failures, done.written + done.reused + len(done.failures), [])
    if not code:
        again = f" ({done.reused} were there already)" if done.reused else ""
        print(f"{out}: {done.written + done.reused} melodies{again}")
    return code


def shards(options: argparse.Namespace) -> int:
    """Run ``qbhkit data shards``."""
    from qbhkit.corpora import CORPORA, open_source, songs_of
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.contour_shards import write_shards

    data = options.data or data_dir()
    songs = training_songs(tuple(name for name in options.sources if name in CORPORA), data)
    paths = [source for source in options.sources if source not in CORPORA]
    corpora = [corpus for path in paths for corpus in open_source(path, data)]
    groups = list(songs.groups)

    def contours() -> "Iterator[Contour]":
        yield from songs.contours
        first = max(groups, default=-1) + 1
        others = (song for corpus in corpora for song in songs_of(corpus))
        for tune, song in enumerate(others, first):
            groups.append(tune)  # a tune of its own: variants among them are not known
            yield song.contour().trimmed()[0]

    bank = write_shards(contours(), options.out, groups, progress=not quiet())
    print(f"{options.out}: {len(bank.lengths)} songs, {bank.tunes} tunes, {len(bank.pitch)} frames")
    return 0


def render_songs(options: argparse.Namespace) -> int:
    """Run ``qbhkit data render``."""
    from dataclasses import replace

    from qbhkit.config import build_config, config_path, read_yaml
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.render_hums import RenderConfig, render_all

    config = RenderConfig()
    if options.config:
        path = config_path(options.config)
        config = build_config(RenderConfig, read_yaml(path), str(path))
    if options.count is not None:
        config = replace(config, count=options.count)
    songs = training_songs(config.corpora, options.data or data_dir())
    say(f"{len(songs.ids)} songs to render")
    out = options.out or cache_dir() / "rendered.safetensors"
    workers = options.workers or os.cpu_count() or 1
    rendered = render_all(config, songs, out, workers, progress=not quiet())
    frames = rendered.arrays["frames"]
    print(f"{out}: {len(frames)} rendered hums, {frames.sum() / 36000:.1f} h")
    return 0


def verify_corpus(options: argparse.Namespace) -> int:
    """Run ``qbhkit data verify``."""
    from qbhkit.catalogue.build import read_sources
    from qbhkit.corpora import open_corpus
    from qbhkit.corpora.duplicates import MelodyMatcher
    from qbhkit.corpora.fetch import is_inside
    from qbhkit.storage import read_json

    data = options.data or data_dir()
    corpus = open_corpus(options.name, data)
    sums_path = data / f"{options.name}.sums.json"
    if sums_path.is_file():
        sums = read_json(sums_path, "fetch the corpus again")
        if not isinstance(sums, dict) or not all(map(is_inside, sums)):
            raise QbhError(f"{sums_path} is no list of checksums: fetch the corpus again.")
        for name, expected in sums.items():
            path = data / options.name / name
            if not path.is_file() or sha256_file(path) != expected:
                raise QbhError(f"{path} is missing or changed: fetch the corpus again.")
    songs, failures = read_sources([corpus])
    checked = "checksums match, " if sums_path.is_file() else ""
    print(f"{options.name}: {checked}{len(songs)} songs in {len(corpus.files)} files")
    pitches = {song.id: song.notes[:, 2] for song in songs if song.notes is not None}
    near = MelodyMatcher(pitches).groups(_SAME_TUNE)
    print(f"{len(near)} groups of near-duplicates, {sum(map(len, near))} songs in all")
    for group in near[:_MOST_LISTED]:
        print(plain(f"    {', '.join(group[:6])}{' ...' if len(group) > 6 else ''}"))
    report_failures(failures, len(songs) + len(failures), [])
    return 2 if failures else 0
