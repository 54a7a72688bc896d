"""Make the splits beside this file, once and for all: ``python data/splits/make_splits.py DATA``.

DATA is the folder with mir-qbsh, mirex-essen-2000, ioacas, ultrastar and the corpora to train on.
Everything is drawn with one seed from sorted lists, so the same corpora give the same files; a list
of held-out songs that is there already is kept.

- ``mir_qbsh.json``: song folds by singer folds. A hum is scored by the model of its (song fold,
  singer fold), which was trained on hums of other songs by other singers; results are pooled over
  all hums. ``training_singers`` serve whatever needs voices only (thresholds, timbres).
- ``folk.json``: a fifth of the folk tunes is held out as distractors, whole groups of variants
  together; ``dropped`` may not be trained on because they are near a song, a distractor or an
  IOACAS melody (named beside them); ``too_short`` because that cannot be told; ``variants`` are
  groups whose members are never each other's negatives.
- ``pop909.json``: a fifth of POP909, held out likewise; the same filter is applied to the rest.
- ``seed_contours.json``: the same filter; none is held out, because nothing is evaluated on these
  excerpts; ``variants`` are those of one song.
- ``lmd_vocals.json``, ``hooktheory.json``, ``medleydb.json``: none is held out; ``dropped`` holds
  those of a second stage too, which aligns songs: who holds a stretch of an evaluation song, typed
  notes of ``ultrastar`` included, may not be trained on.
- ``evaluation_variants.json``: what the second stage drops of the first three, for recipes with
  ``song_filter: alignment``. The shipped weights were trained without it.
"""

import json
import random
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from qbhkit.contour import from_f0
from qbhkit.corpora import open_corpus, songs_of
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS
from qbhkit.corpora.duplicates import (
    NEAR,
    RUN,
    MelodyMatcher,
    note_pitches,
    pitch_changes,
    too_short_to_tell,
    training_filter,
)
from qbhkit.corpora.folders import EVALUATION_YEAR, MirQbsh
from qbhkit.corpora.songs import Song, natural_key
from qbhkit.corpora.variants import VariantFinder, held
from qbhkit.storage import cache_dir, read_json, write_json

SEED = 20261122
FOLDS = 3
HELD_OUT = 0.2
KNOWN = {"pop909": {"140": "ioacas/10312"}}  # a variant by ear, at 0.099: above the limit
VARIANT = 0.7  # share of runs from which two tunes count as variants of each other
HERE = Path(__file__).parent


def pitches_of(song: Song) -> list[float]:
    """Return the pitches of a song in order."""
    if song.notes is not None:
        return list(song.notes[:, 2])
    return list(note_pitches(from_f0(song.f0).pitch_st))


def balanced_folds(weights: Counter[str], rng: random.Random) -> list[list[str]]:
    """Deal names into folds of about equal weight."""
    names = sorted(weights)
    rng.shuffle(names)
    folds: list[list[str]] = [[] for _ in range(FOLDS)]
    for name in sorted(names, key=lambda name: -weights[name]):
        min(folds, key=lambda fold: (sum(weights[n] for n in fold), len(fold))).append(name)
    return [sorted(fold) for fold in folds]


def of_one_song(excerpts: list[str]) -> list[list[str]]:
    """Return groups of excerpts (``SONG-FRAME``) that are of the same song."""
    members = defaultdict(list)
    for key in excerpts:
        members[key.split("-")[0]].append(key)
    return [group for group in members.values() if len(group) > 1]


def hold_out(
    groups: list[list[str]], singles: list[str], share: float, rng: random.Random
) -> list[str]:
    """Draw whole groups until a share of all names is held out; never one that is a tenth alone."""
    total = sum(map(len, groups)) + len(singles)
    units = [group for group in groups if len(group) < total / 10] + [[name] for name in singles]
    rng.shuffle(units)
    held: list[str] = []
    for unit in units:
        if len(held) + len(unit) <= share * total:
            held += unit
    return sorted(held, key=natural_key)


def typed_songs(data: Path) -> list[Song]:
    """Return the typed notes of the real recordings in ``ultrastar``."""
    songs = []
    for path in sorted(data.glob("ultrastar/*/notes.csv")):
        notes = np.loadtxt(path, delimiter=",", skiprows=1)[:, :3]
        notes = notes[np.argsort(notes[:, 0], kind="stable")]
        songs.append(Song(path.parent.name, path.parent.name, str(path), notes=notes))
    return songs


def aligned_variants(name: str, songs: list[Song], protected: dict[str, Song]) -> dict[str, str]:
    """Return the songs that hold a stretch of a protected one, and the nearest of these.

    What is found is kept in the cache (``variants/NAME.jsonl``), so a second run goes on from
    there. Delete it when songs or the finder change.
    """
    path = cache_dir() / "variants" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    finder = VariantFinder([held(song) for song in songs])
    with path.open("a+", encoding="utf-8") as file:
        file.seek(0)
        found = dict(json.loads(line) for line in file)
        for key in tqdm(sorted(protected.keys() - found.keys()), name):
            near = finder.near(held(protected[key]))
            found[key] = [(songs[number].id, distance) for number, distance in near]
            print(json.dumps([key, found[key]]), file=file, flush=True)
    nearest: dict[str, tuple[float, str]] = {}
    for key, near in found.items():
        for song_id, distance in near:
            nearest[song_id] = min(nearest.get(song_id, (1.0, "")), (distance, key))
    return {song_id: nearest[song_id][1] for song_id in sorted(nearest, key=natural_key)}


def main(data: Path) -> None:
    """Write the files."""
    songs = list(songs_of(open_corpus("mir-qbsh", data)))
    corpus = MirQbsh(data / "mir-qbsh")
    hums = corpus.hums(EVALUATION_YEAR)
    rng = random.Random(SEED)
    singers = sorted({hum.singer for hum in hums})
    # The years before were added later. Dealt apart, they leave the first folds as they were.
    sung_by = Counter(hum.singer for hum in corpus.hums() if hum.singer not in singers)
    others = balanced_folds(sung_by, random.Random(SEED))
    sung = Counter(hum.song_id for hum in hums)
    for song in songs:
        sung[song.id] += 0
    write_json(
        HERE / "mir_qbsh.json",
        {
            "seed": SEED,
            "song_folds": balanced_folds(sung, rng),
            "singer_folds": [
                sorted(fold + more)
                for fold, more in zip(
                    balanced_folds(Counter(hum.singer for hum in hums), rng), others, strict=True
                )
            ],
            "training_singers": sorted(rng.sample(singers, len(singers) // 2)),
        },
    )
    evaluated = {f"mir-qbsh/{song.id}": song for song in songs}
    for name in ("mirex-essen-2000", "ioacas"):
        known = songs_of(open_corpus(name, data))
        evaluated |= {f"{name}/{song.id}": song for song in known}
    protected = {key: pitches_of(song) for key, song in evaluated.items()}
    evaluated |= {f"ultrastar/{song.id}": song for song in typed_songs(data)}
    variants = {}
    for name, corpora, share in (
        ("folk", tuple(MUSIC21_COLLECTIONS), HELD_OUT),
        ("pop909", ("pop909",), HELD_OUT),
        ("seed_contours", ("seed-contours",), 0),
        ("lmd_vocals", ("lmd-vocals",), 0),
        ("hooktheory", ("hooktheory",), 0),
        ("medleydb", ("medleydb",), 0),
    ):
        pool = [song for corpus in corpora for song in songs_of(open_corpus(corpus, data))]
        melodies = {song.id: pitches_of(song) for song in pool}
        voiced = {song.id for song in pool if song.contour().voiced.any()}
        if name == "seed_contours":
            groups = of_one_song(list(melodies))
        else:
            groups = MelodyMatcher(melodies).groups(VARIANT)
        too_short = [
            key
            for key, pitches in melodies.items()
            if too_short_to_tell(pitch_changes(pitches)) or key not in voiced
        ]
        grouped = {key for group in groups for key in group}
        rng = random.Random(SEED)
        path = HERE / f"{name}.json"
        if path.is_file():  # once drawn it stays: models were trained without these tunes
            held_out = [key for key in read_json(path, "delete it")["held_out"] if key in melodies]
        else:
            held_out = hold_out(groups, [key for key in melodies if key not in grouped], share, rng)
        dropped = training_filter(melodies, protected, NEAR)
        left = [song for song in pool if song.id not in {*dropped, *too_short}]
        aligned = aligned_variants(name, left, evaluated) | KNOWN.get(name, {})
        if name in ("folk", "pop909", "seed_contours"):
            variants[name] = aligned
        else:
            dropped |= aligned
        write_json(
            path,
            {
                "seed": SEED,
                "run": RUN,
                "share": NEAR,
                "songs": len(melodies),
                "training": len(set(melodies) - set(held_out) - set(dropped) - set(too_short)),
                "held_out": held_out,
                "dropped": dropped,
                "too_short": too_short,
                "variants": groups,
            },
        )
    write_json(HERE / "evaluation_variants.json", variants)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
