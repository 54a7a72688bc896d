"""``qbhkit data``: list, fetch, verify and prepare corpora."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from qbhkit.cli import options as opt
from qbhkit.cli.terminal import plain, quiet, report_failures, say
from qbhkit.errors import QbhError
from qbhkit.storage import cache_dir, data_dir, sha256_file, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qbhkit.contour import Contour

_SAME_TUNE = 0.8  # tunes that share this much of their note sequences are near-duplicates
_MOST_LISTED = 5

app = opt.group("data", "List, fetch, verify and prepare corpora.", "qbhkit data list")
_Name = Annotated[str, opt.argument("NAME", "a corpus of 'qbhkit data list'")]


@opt.add_command(app, "list", "qbhkit data list")
def list_corpora(data: opt.Data = None) -> int:
    """List the known corpora."""
    from qbhkit.corpora import CORPORA, open_corpus

    data = data or data_dir()
    for info in CORPORA.values():
        try:
            state = f"here, {len(open_corpus(info.name, data).files)} files"
        except QbhError:
            state = "not here"
        print(f"{info.name}: {info.what} ({state})")
        print(f"    from:  {info.where}\n    terms: {info.terms}\n    get:   {info.cure}")
    return 0


@opt.add_command(app, "fetch", "qbhkit data fetch mir-qbsh")
def fetch_corpus(name: _Name, data: opt.Data = None) -> int:
    """Download a corpus from its official site."""
    from qbhkit.corpora import CORPORA
    from qbhkit.corpora.fetch import download, unpack

    info = CORPORA.get(name)
    if info is None:
        raise QbhError(f"There is no corpus {name!r}; see 'qbhkit data list'.")
    if info.url is None or info.sha256 is None:
        raise QbhError(f"{info.name} is not offered for download: {info.cure}.")
    data = data or data_dir()
    archive = data / f"{info.name}.zip"
    download(info.url, archive, info.sha256, progress=not quiet())
    unpack(archive, data / info.name)
    files = sorted(path for path in (data / info.name).rglob("*") if path.is_file())
    sums = {str(path.relative_to(data / info.name)): sha256_file(path) for path in files}
    write_json(data / f"{info.name}.sums.json", sums)
    print(f"{data / info.name}: {len(files)} files")
    return 0


@opt.add_command(app, "pairs", "qbhkit data pairs")
def pairs(
    out: Annotated[Path | None, opt.option("CSV", "default: pairs.csv in the cache")] = None,
    year: Annotated[str, opt.option("FOLDER", "year of the hums (default: all)")] = "*",
    tracker: opt.HumTracker = None,
    data: opt.Data = None,
) -> int:
    """Align the hums of MIR-QBSH with their songs, to train on."""
    from qbhkit.corpora import songs_of
    from qbhkit.corpora.folders import MirQbsh
    from qbhkit.corpora.hum_csv import write_pairs
    from qbhkit.embedding.hum_pairs import find_pairs
    from qbhkit.pitch.trackers import get_tracker

    corpus = MirQbsh((data or data_dir()) / "mir-qbsh")
    hums, songs = corpus.hums(year), songs_of(corpus)
    found, failures = find_pairs(hums, songs, get_tracker(tracker), progress=not quiet())
    for failure in failures:
        say(f"qbhkit: {failure.reason}")
    out = out or cache_dir() / "pairs.csv"
    write_pairs(found, out)
    print(f"{out}: {len(found)} hums")
    return 0


@opt.add_command(
    app, "transcribe", "qbhkit data transcribe pop909 --songs 300 --seconds 60", former="hear"
)
def transcribe(
    corpus: Annotated[str, opt.argument("CORPUS", "pop909: MIDI with an accompaniment")],
    out: Annotated[
        Path | None, opt.option("DIR", "default: CORPUS-transcribed in the cache")
    ] = None,
    songs: Annotated[int | None, opt.option("N", "only the first N (default: all)")] = None,
    seconds: Annotated[
        float | None, opt.option("S", "of each song, from 1 s before its melody (default: all)")
    ] = None,
    level_db: Annotated[
        tuple[float, float], opt.option("LOW HIGH", "dB of the voice over the accompaniment")
    ] = (-3.0, 6.0),
    seed: Annotated[int, opt.option("K", "random seed")] = 0,
    tracker: opt.MixTracker = None,
    data: opt.Data = None,
) -> int:
    """Render songs with their accompaniment, and track the melody in them."""
    from qbhkit.pitch.render_and_transcribe import TranscribeConfig, transcribe_corpus
    from qbhkit.pitch.trackers import default_song_tracker

    config = TranscribeConfig(seed, seconds, level_db)
    out = out or cache_dir() / f"{corpus}-transcribed"
    done = transcribe_corpus(
        corpus,
        data or data_dir(),
        out,
        config,
        tracker or default_song_tracker(),
        songs,
        progress=not quiet(),
    )
    code = report_failures(done.failures, done.written + done.reused + len(done.failures), [])
    if not code:
        again = f" ({done.reused} were there already)" if done.reused else ""
        print(f"{out}: {done.written + done.reused} melodies{again}")
    return code


@opt.add_command(app, "shards", "qbhkit data shards folk_tunes/ pop909 --out shards/")
def shards(
    sources: Annotated[
        list[str],
        opt.argument("SOURCE", "files, folders or corpora; of a corpus only the training songs"),
    ],
    out: opt.Out,
    data: opt.Data = None,
) -> int:
    """Write melodies as shards, which training reads from disk."""
    from qbhkit.corpora import CORPORA, open_source, songs_of
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.contour_shards import write_shards

    data = data or data_dir()
    songs = training_songs(tuple(name for name in sources if name in CORPORA), data)
    paths = [source for source in sources if source not in CORPORA]
    corpora = [corpus for path in paths for corpus in open_source(path, data)]
    groups = list(songs.groups)

    def contours() -> "Iterator[Contour]":
        yield from songs.contours
        first = max(groups, default=-1) + 1
        others = (song for corpus in corpora for song in songs_of(corpus))
        for tune, song in enumerate(others, first):
            groups.append(tune)  # a tune of its own: variants among them are not known
            yield song.contour().trimmed()[0]

    bank = write_shards(contours(), out, groups, progress=not quiet())
    print(f"{out}: {len(bank.lengths)} songs, {bank.tunes} tunes, {len(bank.pitch)} frames")
    return 0


@opt.add_command(app, "render", "qbhkit data render --count 3000", former="perform")
def render_songs(
    out: Annotated[
        Path | None, opt.option("FILE", "default: rendered.safetensors in the cache")
    ] = None,
    count: Annotated[int | None, opt.option("N", "number of hums, 8 to 20 s each")] = None,
    config: Annotated[str | None, opt.option("YAML", "how hums are rendered")] = None,
    workers: opt.Processes = None,
    data: opt.Data = None,
) -> int:
    """Render training songs as hums, for state distillation."""
    from dataclasses import replace

    from qbhkit.config import load_config
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.render_hums import RenderConfig, render_all

    how = load_config(RenderConfig, config) if config else RenderConfig()
    if count is not None:
        how = replace(how, count=count)
    songs = training_songs(how.corpora, data or data_dir())
    say(f"{len(songs.ids)} songs to render")
    out = out or cache_dir() / "rendered.safetensors"
    workers = workers or os.cpu_count() or 1
    rendered = render_all(how, songs, out, workers, progress=not quiet())
    frames = rendered.arrays["frames"]
    print(f"{out}: {len(frames)} rendered hums, {frames.sum() / 36000:.1f} h")
    return 0


@opt.add_command(app, "verify", "qbhkit data verify mir-qbsh")
def verify_corpus(name: _Name, data: opt.Data = None) -> int:
    """Check a corpus on disk."""
    from qbhkit.catalogue.build import read_sources
    from qbhkit.corpora import open_corpus
    from qbhkit.corpora.duplicates import MelodyMatcher
    from qbhkit.corpora.fetch import is_inside
    from qbhkit.storage import read_json

    data = data or data_dir()
    corpus = open_corpus(name, data)
    sums_path = data / f"{name}.sums.json"
    if sums_path.is_file():
        sums = read_json(sums_path, "fetch the corpus again")
        if not isinstance(sums, dict) or not all(map(is_inside, sums)):
            raise QbhError(f"{sums_path} is no list of checksums: fetch the corpus again.")
        for file, expected in sums.items():
            path = data / name / file
            if not path.is_file() or sha256_file(path) != expected:
                raise QbhError(f"{path} is missing or changed: fetch the corpus again.")
    songs, failures = read_sources([corpus])
    checked = "checksums match, " if sums_path.is_file() else ""
    print(f"{name}: {checked}{len(songs)} songs in {len(corpus.files)} files")
    pitches = {song.id: song.notes[:, 2] for song in songs if song.notes is not None}
    near = MelodyMatcher(pitches).groups(_SAME_TUNE)
    print(f"{len(near)} groups of near-duplicates, {sum(map(len, near))} songs in all")
    for group in near[:_MOST_LISTED]:
        print(plain(f"    {', '.join(group[:6])}{' ...' if len(group) > 6 else ''}"))
    report_failures(failures, len(songs) + len(failures), [])
    return 2 if failures else 0
