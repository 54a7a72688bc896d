"""How real hums depart from their songs, and distorted contours: ``qbhkit bench hum_statistics``.

Real hums (of the singers that may be trained on, tracked) and distorted contours (the default
rules on the same stretches of the same songs, three draws each) are laid along their songs by the
same alignment and measured by the same estimators. An alignment hides part of every error, of both
alike: compare the two sides, and do not read either as the truth about singers.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp, theilslopes

from qbhkit.contour import Contour
from qbhkit.corpora.songs import Song
from qbhkit.embedding.augment import Distortions, distort, warp_positions
from qbhkit.embedding.hum_pairs import Alignment, align_contours
from qbhkit.embedding.windows import Reading, stretch
from qbhkit.evaluation.benchmarks import common
from qbhkit.pitch.trackers import default_tracker
from qbhkit.training_loop import generator

DRAWS, SEED = 3, 20261122
FARTHEST_ST = 1.2  # what lies further from its song on average is not aligned well enough
PIECE_S = 2.0  # of the hum, over which a local tempo is taken
FEWEST_FRAMES = 4  # of a note whose spread is measured
BINS = 30
QUANTILES = (5, 25, 50, 75, 95)
# Where a window begins and ends is no habit of hummers: every hum begins with its song here.
RULES = replace(Distortions(), start_shift=0, crop_chance=0)
UNITS = {
    "interval_error": "semitones",  # hum's minus song's interval between successive notes
    "note_spread": "semitones",  # standard deviation of the pitch within a note
    "drift": "semitones",  # line through the notes' errors, last note minus first
    "tempo": "octaves",  # overall, against the song's
    "local_tempo": "octaves",  # of two seconds, against the hum's own
    "voiced_share": "ratio",  # to that of the song's stretch
    "gap_length": "s",  # of what is unvoiced
    "gap_rate": "in 10 s",
}


def measure(hum: Contour, song: Song, at: Alignment) -> dict[str, list[float]]:
    """Return the statistics of one hum; the lists are as long as there was something to measure."""
    melody = song.contour()
    first, last = round(at.hum_s[0] / hum.hop_s - 0.5), round(at.hum_s[-1] / hum.hop_s + 0.5)
    hum_span_s, song_span_s = np.ptp(at.hum_s), np.ptp(at.song_s)
    error, spread, when_s = note_errors(hum, song, at)
    both = np.isfinite(error[1:]) & np.isfinite(error[:-1])
    measured = np.isfinite(error)
    edges_s = np.arange(at.hum_s[0], at.hum_s[-1], PIECE_S)
    pieces = np.diff(np.interp(edges_s, at.hum_s, at.song_s)) / PIECE_S
    sung = hum.voiced[first:last]
    begin, end = (round(edge / melody.hop_s) for edge in (at.song_s[0], at.song_s[-1]))
    steps = np.diff(np.flatnonzero(sung))
    gaps = steps[steps > 1] - 1  # frames
    found = {
        "interval_error": np.diff(error)[both],
        "note_spread": spread[np.isfinite(spread)],
        "drift": [],
        "tempo": [np.log2(song_span_s / hum_span_s)],
        "local_tempo": np.log2(pieces * hum_span_s / song_span_s),
        "voiced_share": [sung.mean() / melody.voiced[begin : end + 1].mean()],
        "gap_length": gaps * hum.hop_s,
        "gap_rate": [10 * len(gaps) / (len(sung) * hum.hop_s)],
    }
    if measured.sum() >= 4:
        slope = theilslopes(error[measured], when_s[measured])[0]
        found["drift"] = [slope * np.ptp(when_s[measured])]
    return {name: [float(value) for value in values] for name, values in found.items()}


def note_errors(hum: Contour, song: Song, at: Alignment) -> tuple[NDArray, NDArray, NDArray]:
    """Return for each note of the stretch the hum's error and spread (NaN: unvoiced), and when.

    The first and the last note are left out: their ends are the alignment's, not the singer's.
    """
    assert song.notes is not None
    onset_s, length_s, pitch_st = song.notes.T
    inside = (onset_s > at.song_s[0]) & (onset_s + length_s < at.song_s[-1])
    edges_s = np.stack([onset_s, onset_s + length_s], axis=1)[inside]
    spans = np.round(np.interp(edges_s, at.song_s, at.hum_s) / hum.hop_s).astype(int)
    error, spread = np.full(len(spans), np.nan), np.full(len(spans), np.nan)
    for note, ((begin, end), pitch) in enumerate(zip(spans, pitch_st[inside], strict=True)):
        sung = hum.pitch_st[begin:end][hum.voiced[begin:end]]
        if len(sung):
            error[note] = np.median(sung) - pitch - at.key_st
        if len(sung) >= FEWEST_FRAMES:
            spread[note] = sung.std()
    return error, spread, spans.mean(axis=1) * hum.hop_s


def distorted(song: Song, at: Alignment, number: int) -> list[Contour]:
    """Distort the stretch of the song that a hum was aligned to, a few times."""
    melody = song.contour()
    begin = round(at.song_s[0] / melody.hop_s - 0.5)
    steps = round(at.song_s[-1] / melody.hop_s + 0.5) - begin
    rng = generator(SEED, number)
    start, length = np.full(DRAWS, begin), np.full(DRAWS, steps)
    positions = warp_positions(start, length, Reading(steps), RULES, rng)
    return [Contour(frames) for frames in distort(stretch(melody.frames, positions), RULES, rng)]


def compare(name: str, sides: dict[str, NDArray]) -> dict[str, Any]:
    """Return the two distributions of one statistic side by side, and how far they lie apart."""
    low, high = np.percentile(np.concatenate([*sides.values()]), (0.5, 99.5))
    edges = np.linspace(low, high, BINS + 1)
    found: dict[str, Any] = {
        "unit": UNITS[name],
        "ks": round(float(ks_2samp(*sides.values()).statistic), 3),
        "histogram": {"edges": edges.round(4).tolist()},
    }
    for side, values in sides.items():
        quantiles = np.percentile(values, QUANTILES).round(3).tolist()
        named = dict(zip(map(str, QUANTILES), quantiles, strict=True))
        found[side] = {"n": len(values), "quantiles": named}
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        found["histogram"][side] = (counts / len(values)).round(4).tolist()
    return found


def main() -> None:
    options = common.parse(common.arguments(__doc__, hums=0))  # 0: all
    singers = common.training_singers()
    songs = {song.id: song for song in common.read_corpora("mir-qbsh")}
    chosen = [hum for hum in common.hums() if hum.singer in singers][: options.hums or None]
    contours = common.track_all(recording.path for recording in chosen)
    real, made = [], []
    for number, (recording, hum) in enumerate(zip(chosen, contours, strict=True)):
        song = songs[recording.song_id]
        at = align_contours(hum, song.contour())
        if at.distance_st > FARTHEST_ST:
            continue
        real.append(measure(hum, song, at))
        for contour in distorted(song, at, number):
            at_made = align_contours(contour, song.contour())
            if at_made.distance_st <= FARTHEST_ST:
                made.append(measure(contour, song, at_made))
    table = {}
    for name in UNITS:
        sides = {
            side: np.array([value for one in found for value in one[name]])
            for side, found in (("real", real), ("distorted", made))
        }
        row = table[name] = compare(name, sides)
        print(f"{name:16}{row['ks']:.2f}", *(row[side]["quantiles"] for side in sides))
    result = {
        "tracker": default_tracker(),
        "hums": {"singers": len(singers), "recordings": len(chosen), "aligned": len(real)},
        "distorted": {"drawn": DRAWS * len(real), "aligned": len(made)},
        "farthest_st": FARTHEST_ST,
        "rules": "defaults, but start_shift and crop_chance 0: every hum begins with its song",
        "statistics": table,
    }
    common.save(options, "hum_statistics", result)
