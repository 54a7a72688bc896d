"""Real recordings, from the audio to the answer: ``qbhkit bench real_songs``.

``QBHKIT_DATA/ultrastar`` holds songs with the notes that somebody typed for karaoke. The octave is
often wrong, so pitch classes are compared, also at each song's best delay: people type early. Then
the melodies of each tracker join the 2,048 songs of MIREX, and hums made by rule of the typed notes
search for them; a catalogue of the typed notes is the upper bound. A minute each of held-out songs
of POP909, rendered with a voice and heard by the same tracker, lies in the catalogue too, and hums
search for these likewise. Sounds and tracks are kept in the cache. ``--limit N`` takes the first N
recordings, ``--mixes N`` so many rendered songs.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter1d

from qbhkit.audio import Audio, write_wav
from qbhkit.contour import F0_HOP_S, Contour, F0Track, from_f0, from_notes, hz_to_midi
from qbhkit.corpora import Song, open_corpus, stem_of
from qbhkit.corpora.midi import MidiFiles, read_midi
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.augment import Distortions, with_only
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.embedding.song_faults import SongFaults, as_heard
from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks import common
from qbhkit.metrics import grouped, intervals, metrics, rank_of
from qbhkit.pitch.render_and_transcribe import INTRO_S, TranscribeConfig, song_mixture
from qbhkit.pitch.trackers import identity_of, track
from qbhkit.storage import atomic_path, cache_dir, data_dir, read_rows, sha256_file
from qbhkit.synthesis.mixing import MIX_RATE_HZ
from qbhkit.training_loop import Stream, generator
from qbhkit.weights import DEFAULT_EMBEDDING

SEED = 20261130
COLUMNS = ("onset_s", "duration_s", "midi", "phrase")
TRACKERS = ("crnn-lite", "crnn-lite-lead", "crnn", "melodia")
METHODS = ("full", "vote")
TOLERANCE_ST, FAR_S = 0.6, 0.3  # pitch class from a note; distance of a frame that no note explains
NEAR_ST = 1.5  # a pitch farther from its note is a fault
RULES_NAME = "song_faults"
HUMS_OF_MIXES = 3  # of each
RENDERED_S = 60.0
RENDERED = TranscribeConfig(length_s=RENDERED_S, level_db=(-6.0, 3.0))
PAUSE_S = 0.5  # a phrase of a rendered song begins after so long a rest
LATEST = 15  # frames by which the typed notes are moved, both ways
SHORTEST, LONGEST = 80, 120  # frames of a hum: 8 to 12 s
# Tempo 0.84 to 1.19; with the whole keys of common.hummed, keys -7 to 7. A singer's standard
# deviation is 0.2 to 1 of note_st, so it is 0.35 on average.
RULES = replace(
    with_only(Distortions()), tempo_octaves=0.25, key_st=1, drift_chance=1, drift_st=1,
    note_chance=1, note_st=0.58, wrong_note=0.05, glide_chance=1, glide_frames=2,
)  # fmt: skip


class TypedSong(NamedTuple):
    """A recording and the notes that were typed for it."""

    id: str
    audio: Path
    notes: NDArray[np.float64]  # (M, 3) onset and duration (s), MIDI pitch of any octave
    phrase_s: NDArray[np.float64]  # (P,) where phrases begin
    terms: str  # of the recording
    instrumental: Path | None


def read_songs(root: Path) -> list[TypedSong]:
    songs = []
    for table in sorted(root.glob("*/notes.csv")):
        rows = read_rows(table, COLUMNS)
        *notes, phrase = np.array([[float(row[key]) for key in COLUMNS] for row in rows]).T
        _, first = np.unique(phrase, return_index=True)
        files = {file.stem: file for file in table.parent.iterdir() if file.suffix != ".txt"}
        text = table.with_name("license.txt").read_text("utf-8", errors="replace")
        terms = re.search(r"creativecommons\.org/licenses/([\w-]+)/([\d.]+)", text)
        named = f"CC {terms[1].upper()} {terms[2]}" if terms else "see license.txt"
        known = table.parent.name, files["audio"], np.stack(notes, axis=1), notes[0][first], named
        songs.append(TypedSong(*known, files.get("instrumental")))
    if not songs:
        raise QbhError(f"{root} holds no songs: put ID/notes.csv with its audio and licence there.")
    return songs


def held_out_pop(count: int) -> list[Path]:
    """Return the first files of POP909 that no stage has learnt, nor a variant of theirs."""
    split = read_split("pop909")
    near = {*split["dropped"], *split["too_short"], *read_split("evaluation_variants")["pop909"]}
    corpus = open_corpus("pop909", data_dir())
    assert isinstance(corpus, MidiFiles)
    files = {stem_of(path): path for path in corpus.files}
    return [files[name] for name in split["held_out"] if name not in near][:count]


def rendered(path: Path) -> TypedSong:
    """Sing a minute of a MIDI song over its accompaniment."""
    key = int.from_bytes(stem_of(path).encode(), "big")
    mixture = song_mixture(path, RENDERED, generator(RENDERED.seed, Stream.TRANSCRIPTION, key))
    audio = cache_dir() / "real-songs" / "rendered" / f"{stem_of(path)}.wav"
    write_wav(Audio(mixture.samples, MIX_RATE_HZ), audio)
    notes = read_midi(path)
    notes[:, 0] -= notes[0, 0] - INTRO_S
    notes = notes[notes[:, 0] < RENDERED_S]
    ends_s = np.concatenate([[0], notes[:-1, 0] + notes[:-1, 1]])
    begins = notes[:, 0] - np.maximum.accumulate(ends_s) >= PAUSE_S
    return TypedSong(f"pop909/{stem_of(path)}", audio, notes, notes[begins, 0], "rendered", None)


def tracked(path: Path, tracker: str) -> F0Track:
    """Track a recording, or return its track from the cache."""
    key = hashlib.sha256((identity_of(tracker) + sha256_file(path)).encode()).hexdigest()[:16]
    kept = cache_dir() / "real-songs" / f"{tracker}-{key}.npy"
    if not kept.is_file():
        found = track(path, tracker)
        with atomic_path(kept) as part:
            np.save(part, np.stack([found.frequency_hz, found.voicing]))
    return F0Track(*np.load(kept, allow_pickle=False))


def score(found: F0Track, notes: NDArray, delay: int = 0) -> dict[str, float]:
    """Compare a track with typed notes that sound so many frames of 10 ms later."""
    count, voiced = len(found.frequency_hz), found.voiced
    typed = from_notes(notes + np.array([delay * F0_HOP_S, 0, 0]), F0_HOP_S).pitch_st
    typed = np.pad(typed, (0, count))[:count]
    sung = typed > 0
    off = hz_to_midi(np.maximum(found.frequency_hz, 1)) - typed
    near = (found.frequency_hz > 0) & (np.abs((off + 6) % 12 - 6) <= TOLERANCE_ST)
    beside = maximum_filter1d(sung.astype(np.int8), 2 * round(FAR_S / F0_HOP_S) + 1)
    parts = {
        "pitch_class_accuracy": near[sung],
        "voiced_pitch_class_accuracy": (near & voiced)[sung],
        "voicing_recall": voiced[sung],
        "false_alarm": voiced[beside == 0],
    }
    return {name: float(part.mean()) if len(part) else 0.0 for name, part in parts.items()}


def at_best_delay(found: F0Track, notes: NDArray) -> dict[str, float]:
    """Return :func:`score` at the delay with the best accuracy, the smallest of several."""
    delays = sorted(range(-LATEST, LATEST + 1), key=abs)
    best = max(delays, key=lambda delay: score(found, notes, delay)["pitch_class_accuracy"])
    return {"delay_ms": 1000 * best * F0_HOP_S, **score(found, notes, best)}


def mean(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the mean of each number over rows."""
    return {
        key: float(np.mean([row[key] for row in rows]))
        for key, value in next(iter(rows)).items()
        if not isinstance(value, dict)
    }


def melodies(songs: Sequence[TypedSong], tracker: str) -> dict[str, Any]:
    per_song: dict[str, dict[str, Any]] = {}
    karaoke = {}
    for song in songs:
        found = tracked(song.audio, tracker)
        per_song[song.id] = score(found, song.notes)
        per_song[song.id]["at_best_delay"] = at_best_delay(found, song.notes)
        if song.instrumental:
            karaoke[song.id] = float(tracked(song.instrumental, tracker).voiced.mean())
    aligned = [row["at_best_delay"] for row in per_song.values()]
    return {
        "identity": identity_of(tracker),
        "mean": {**mean(per_song.values()), "at_best_delay": mean(aligned)},
        "per_song": per_song,
        "instrumental_false_alarm": karaoke,
    }


def faults(heard: NDArray, typed: NDArray) -> dict[str, float]:
    """Count what a tracker did to typed notes.

    Args:
        heard: (N, L) MIDI semitones every 100 ms, 0 = unvoiced.
        typed: (N, L) likewise; of the same octave.

    Returns:
        Shares: of the typed frames those that are ``lost``; of those heard those that are an
        ``octave`` off, or off by more than 1.5 semitones ``otherwise``; of the rests those that are
        ``filled``. Each with the share of its frames in runs of one or two: ``lost_short`` and
        so on.
    """
    sung, voiced = typed > 0, heard > 0
    off = np.abs(heard - typed)
    both, wrong = sung & voiced, off > NEAR_ST
    octave = both & wrong & (off > 6) & (np.abs(off - 12 * np.round(off / 12)) <= 1)
    found = {}
    for name, where, of in (
        ("lost", sung & ~voiced, sung),
        ("octave", octave, both),
        ("otherwise", both & wrong & ~octave, both),
        ("filled", voiced & ~sung, ~sung),
    ):
        edges = np.flatnonzero(np.diff(np.pad(where, ((0, 0), (1, 1))).ravel().astype(np.int8)))
        runs = edges[1::2] - edges[::2]
        found[name] = float(where.sum() / max(of.sum(), 1))
        found[f"{name}_short"] = float(runs[runs <= 2].sum() / max(runs.sum(), 1))
    return found


def typed_and_heard(song: TypedSong, tracker: str) -> tuple[NDArray, NDArray]:
    """Return (1, L) typed notes at a track's best delay, and its pitch in their octave."""
    track = tracked(song.audio, tracker)
    late_s = at_best_delay(track, song.notes)["delay_ms"] / 1000
    typed = from_notes(song.notes + np.array([late_s, 0, 0])).pitch_st
    heard = from_f0(track).pitch_st
    count = min(len(typed), len(heard))
    typed, heard = typed[:count], heard[:count]
    both = (typed > 0) & (heard > 0)
    octave = 12 * np.round(np.median((heard - typed)[both]) / 12)
    first = int((typed > 0).argmax())
    return typed[None, first:], np.where(heard > 0, heard - octave, 0)[None, first:]


def all_faults(songs: Sequence[TypedSong], trackers: Sequence[str]) -> dict[str, Any]:
    """Return the faults of trackers, the mean over songs, and those of rules that imitate them."""
    found = {
        name: mean([faults(*reversed(typed_and_heard(song, name))) for song in songs])
        for name in trackers
    }
    windows = np.tile(sung_windows(songs), (50, 1, 1))
    return found | {RULES_NAME: faults(by_rule(windows), windows[..., 0])}


def sung_windows(songs: Sequence[TypedSong]) -> NDArray:
    """Return (B, L, 2) typed notes of songs in windows that are voiced for more than half."""
    whole = np.concatenate([from_notes(song.notes).frames for song in songs])
    windows = whole[: len(whole) // LONGEST * LONGEST].reshape(-1, LONGEST, 2)
    return windows[windows[..., 1].mean(axis=1) > 0.5]


def by_rule(windows: NDArray) -> NDArray:
    """Return the pitch (B, L) of windows (B, L, 2), distorted as a tracker would."""
    return as_heard(windows, SongFaults(heard=1), generator(SEED))[..., 0]


def shape(pitches: Iterable[NDArray]) -> dict[str, float]:
    """Describe melodies (N,) every 100 ms, 0 = unvoiced, by runs and steps.

    Returns:
        The ``voiced`` share of the frames; the median length of voiced runs and of the rests
        between them, ``run_s`` and ``rest_s``; of the steps between neighbouring voiced frames the
        shares under 0.15 semitones (``held``), up to 1.5 (``slid``: glides, vibrato and small
        intervals) and over 6 (``leapt``).
    """
    found: dict[str, list[NDArray]] = {"voiced": [], "runs": [], "rests": [], "steps": []}
    for pitch in pitches:
        voiced = pitch > 0
        edges = np.flatnonzero(np.diff(np.pad(voiced, 1).astype(np.int8)))
        found["voiced"].append(voiced)
        found["runs"].append(edges[1::2] - edges[::2])
        found["rests"].append(edges[2::2] - edges[1:-1:2])
        found["steps"].append(np.abs(np.diff(pitch))[voiced[1:] & voiced[:-1]])
    voiced, runs, rests, steps = (np.concatenate(parts) for parts in found.values())
    slid = (steps >= 0.15) & (steps <= NEAR_ST)
    named = {"held": steps < 0.15, "slid": slid, "leapt": steps > 6, "voiced": voiced}
    shares = {name: float(part.mean()) for name, part in named.items()}
    lengths = {"run_s": float(np.median(runs)) / 10, "rest_s": float(np.median(rests)) / 10}
    return {**shares, **lengths}


def shapes(songs: Sequence[TypedSong], trackers: Sequence[str]) -> dict[str, Any]:
    """Return the shapes of MedleyDB, typed notes, and what trackers and rules make of them."""
    corrected = [song.contour() for song in common.read_corpora("medleydb")]
    typed = {"typed notes": [from_notes(song.notes).pitch_st for song in songs]}
    tracks = {
        name: [from_f0(tracked(song.audio, name)).pitch_st for song in songs] for name in trackers
    }
    made = {RULES_NAME: by_rule(sung_windows(songs))}
    medleydb = {"MedleyDB, corrected by hand": [contour.pitch_st for contour in corrected]}
    return {name: shape(each) for name, each in (medleydb | typed | tracks | made).items()}


def heard_by(songs: Sequence[TypedSong], tracker: str) -> list[Song]:
    return [Song(s.id, s.id, "", s.terms, f0=tracked(s.audio, tracker)) for s in songs]


def all_hums(songs: Sequence[TypedSong], count: int) -> list[tuple[str, Contour]]:
    """Return so many hums of each song, with its id."""
    return [
        (song.id, hum)
        for number, song in enumerate(songs)
        for hum in hums_of(song, count, generator(SEED, number))
    ]


def hums_of(song: TypedSong, count: int, rng: Generator) -> list[Contour]:
    """Hum parts of a song that begin with a phrase and are sung for at least half of the time."""
    melody = from_notes(song.notes)
    phrases = (song.phrase_s / melody.hop_s).astype(int)
    starts = np.intersect1d(phrases, common.voiced_starts(melody, LONGEST))
    if not len(starts):
        return []
    chosen = np.resize(rng.permutation(starts), (count, 1))
    lengths = map(int, rng.integers(SHORTEST, LONGEST + 1, count))
    return [
        common.hummed(melody, start, length, rng, RULES)[0]
        for start, length in zip(chosen, lengths, strict=True)
    ]


def retrieval(
    catalogues: dict[str, list[Song]],
    others: Sequence[Song],
    hums: Sequence[tuple[str, Contour]],
    embedder: ContourEmbedder,
) -> dict[str, Any]:
    """Search each list of songs among the others; hums come with the ids of their songs."""
    ids, contours = zip(*hums, strict=True)
    found: dict[str, Any] = {}
    for name, songs in catalogues.items():
        # one folder: the shards of the other songs are built once
        place = f"real-songs-{embedder.identity}"
        searcher = common.searcher_of([*others, *songs], place, embedder)
        number, found[name] = searcher.catalogue.number, {}
        for method in METHODS:
            scored = searcher.scores_many(contours, "anywhere", method)
            ranks = [rank_of(one.score, number[key]) for one, key in zip(scored, ids, strict=True)]
            block = found[name][method] = {
                **metrics(ranks)._asdict(),
                "intervals_by_song": intervals(ranks, groups=ids),
                "per_song": grouped(ranks, ids),
                "ranks": ranks,
            }
            print(f"{name:12}{method:6}{common.brief(block)}", flush=True)
    return found


def main() -> None:
    given = {"trackers": TRACKERS, "segments": 20, "limit": 0, "mixes": 35}
    options = common.parse(common.arguments(__doc__, **given, weights=DEFAULT_EMBEDDING))
    songs = read_songs(data_dir() / "ultrastar")[: options.limit or None]
    names, missing = common.available(options.trackers)
    found = {name: melodies(songs, name) for name in names}
    for name, block in found.items():
        for means in (block["mean"], block["mean"]["at_best_delay"]):
            print(name, *(f"{key} {v:.3f}" for key, v in means.items() if not isinstance(v, dict)))
    mixes = [*map(rendered, held_out_pop(options.mixes))]
    catalogues = {name: heard_by([*songs, *mixes], name) for name in names}
    catalogues["typed notes"] = [Song(s.id, s.id, "", s.terms, s.notes) for s in (*songs, *mixes)]
    others, embedder = common.read_corpora(*common.DATABASE), ContourEmbedder(options.weights)
    hums, hums_of_mixes = all_hums(songs, options.segments), all_hums(mixes, HUMS_OF_MIXES)
    result = {
        "terms": {song.id: song.terms for song in songs},
        "trackers": found,
        "missing": missing,
        "faults": {"recordings": all_faults(songs, names), "rendered": all_faults(mixes, names)},
        "shapes": shapes(songs, names),
        "weights": embedder.identity,
        "songs": len(others) + len(songs) + len(mixes),
        "rendered": len(mixes),
        "hums": len(hums),
        "retrieval": retrieval(catalogues, others, hums, embedder),
        "retrieval_rendered": retrieval(catalogues, others, hums_of_mixes, embedder),
    }
    common.save(options, "real_songs", result)
