# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 04 · Augmentation: how to hum wrongly on purpose
#
# What you will learn:
# 1. every rule by which the kit turns a written melody into something like a hum, seen and heard;
# 2. how to switch rules on and off, one by one or by groups, and how much each group changes;
# 3. how near the result is to real hums, measured on both by the same ruler.

# %% tags=["parameters"]
profile = "tiny"  # "full" draws more contours for the table of groups
seed = 0
data_dir = ""  # folder with corpora; empty: the environment variable QBHKIT_DATA

# %%
import json
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import soxr
from IPython.display import Audio, display

import qbhkit
from qbhkit.audio import load
from qbhkit.contour import Contour, from_f0, from_notes, normalise
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.folders import MirQbsh
from qbhkit.corpora.songs import songs_of
from qbhkit.embedding.augment import (
    GROUPS,
    Distortions,
    distort,
    warp_positions,
    with_only,
    without,
)
from qbhkit.embedding.hum_pairs import align_contours
from qbhkit.embedding.windows import Reading, stretch
from qbhkit.errors import QbhError
from qbhkit.figures import contour_figure, distortions_figure, hum_statistics_figure
from qbhkit.pitch.trackers import get_tracker
from qbhkit.storage import data_dir as default_data_dir
from qbhkit.synthesis.singer import Voice, render_hum

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## Why hum wrongly?
#
# The network of the next notebook has to learn that a tune and somebody's hum of it are the same. There
# are thousands of tunes, and hardly any hums of them. So rules imitate what hummers do: each batch of
# training shows every tune with new errors.
#
# One melody will show them all. O'Neill's collection (1903, public domain) calls the tune *The Brave
# Volunteers*, but from its fourth second on it is *Oh! Susanna*. We take that phrase, slower and lower.

# %%
tune = next(
    song
    for song in songs_of(music21_collection("oneills1850"))
    if song.title == "THE BRAVE VOLUNTEERS"
)
onset_s = tune.notes[:, 0]
phrase = tune.notes[(onset_s >= 4.0) & (onset_s < 9.3)]
notes = (phrase - [4.0, 0, 14]) * [1.6, 1.6, 1]
notes[:-1, 1] = np.diff(notes[:, 0])  # each note is held until the next
melody = from_notes(notes)
contour_figure(melody, f"{tune.title}, from 4 s on, slower and lower")

# %% [markdown]
# And to hear: the kit's voice sings each frame of 100 ms as it stands. Every sound below is made like this.

# %%
print("No real recordings here: every sound below is rendered by the kit.")
STEADY = Voice(note_error_st=0, timing_error=0, vibrato_st=0, gap=0, glide_s=0.04)


def hear(contour, most_s=5.0):
    at = np.flatnonzero(contour.voiced[: round(most_s / contour.hop_s)])
    frames = np.stack([at / 10, np.full(len(at), 0.1), contour.pitch_st[at]], axis=1)
    sound = render_hum(frames, STEADY, np.random.default_rng(seed)).audio
    return Audio(soxr.resample(sound.samples, sound.rate_hz, 8000), rate=8000)


display(hear(melody))

# %% [markdown]
# ## One rule at a time
#
# `Distortions` holds the chance and the strength of every rule. `with_only(rules)` switches all of them
# off; then `replace` switches one on. Where a rule has a chance, 1 means that every contour draws it.

# %%
OFF = with_only(Distortions())


def distorted(contour, draw=seed, **rules):
    lone = replace(OFF, **rules)
    sung = distort(contour.frames[None], lone, np.random.default_rng(draw))
    return Contour(sung[0])


np.testing.assert_array_equal(distorted(melody).frames, melody.frames)

# %% [markdown]
# ### Time
#
# Time rules do not touch pitches. `warp_positions` decides which moment of the song each frame of the
# hum reads: the hum may begin earlier or later than the song's window, run faster or slower, and change
# its tempo from slice to slice. The grey line is the melody, the blue one what became of it.


# %%
def warped(draw=seed, **rules):
    rng, steps = np.random.default_rng(draw), len(melody)
    start, length = np.zeros(1), np.full(1, steps)
    positions = warp_positions(start, length, Reading(steps), replace(OFF, **rules), rng)
    return Contour(stretch(melody.frames, positions)[0])


versions = {
    "begins elsewhere": warped(start_shift=0.15, draw=2),
    "slower or faster": warped(tempo_octaves=0.4, draw=3),
    "uneven tempo": warped(slice_tempo=0.5, draw=5),
}
distortions_figure(melody, versions, "Rules of time")

# %% [markdown]
# ### Pitch
#
# From the whole tune down to the step between two notes. Key, range, drift and modulation are errors of
# memory and of the frontend; notes left out or added, of somebody who half knows the tune; glides, of the voice.

# %%
versions = {
    "another key": distorted(melody, key_st=6),
    "an octave slip": distorted(melody, octave_chance=1, draw=5),
    "wrong notes": distorted(melody, wrong_note=0.2, draw=2),
    "range scaled": distorted(melody, range_chance=1, range_scale=0.5, draw=4),
    "drift": distorted(melody, drift_chance=1, drift_st=3, draw=2),
    "modulation midway": distorted(melody, modulation_chance=1, modulation_st=2, draw=1),
    "slices off": distorted(melody, offset_chance=1, offset_st=1, draw=4),
    "every note a little off": distorted(melody, note_chance=1, note_st=0.8),
    "notes left out": distorted(melody, left_out_chance=1, left_out_share=0.2, draw=2),
    "passing notes added": distorted(melody, added_chance=1, added_share=0.2, draw=2),
    "glides": distorted(melody, glide_chance=1, glide_frames=3),
    "smoothed": distorted(melody, smooth_chance=1),
}
distortions_figure(melody, versions, "Rules of pitch")

# %% [markdown]
# A change of key moves every frame alike. It looks drastic and costs nothing: `normalise` takes it away.

# %%
np.testing.assert_allclose(
    normalise(versions["another key"].frames, "key"), normalise(melody.frames, "key"), atol=1e-5
)

# %% [markdown]
# A note left out becomes a rest, or its time goes to the note before. A modulation changes the key once,
# at the beginning of a note, and stays there. To hear these two, and the glides:

# %%
for name in ("notes left out", "modulation midway", "glides"):
    print(name)
    display(hear(versions[name]))

# %% [markdown]
# ### Voicing
#
# Where the voice sounds. To see rests come and go, we need some: the same melody, each note a little
# shorter.

# %%
detached = from_notes(notes * [1, 0.7, 1])
versions = {
    "both ends cropped": distorted(detached, crop_chance=1, crop_share=0.5),
    "a stretch dropped": distorted(detached, dropout_chance=1, dropout_share=0.4, draw=2),
    "all rests sung through": distorted(detached, fill_chance=1),
    "legato: short rests only": distorted(detached, legato_chance=1, legato_frames=1),
    "staccato": distorted(detached, staccato_chance=1, staccato_share=0.7),
}
distortions_figure(detached, versions, "Rules of voicing")

# %% [markdown]
# Filling and legato hold the note before; they never invent a glide through a rest.

# %%
filled = versions["all rests sung through"]
assert filled.voiced[: np.flatnonzero(detached.voiced)[-1]].all()
assert set(np.unique(filled.pitch_st)) <= set(np.unique(detached.pitch_st))

# %% [markdown]
# ### Tracker
#
# The last errors are nobody's: the pitch tracker hears noise as pitch, an overtone as the tone, or
# nothing at all.

# %%
versions = {
    "jitter": distorted(melody, jitter_st=0.6),
    "absurd frames": distorted(melody, absurd_chance=1, absurd_share=0.3, draw=3),
    "notes an octave off": distorted(melody, octave_note_chance=1, octave_note_share=0.15, draw=3),
    "single frames lost": distorted(melody, lost_frame_chance=1, lost_frame_share=0.15),
}
distortions_figure(melody, versions, "Rules of the tracker", columns=4)

# %%
display(hear(versions["notes an octave off"]))

# %% [markdown]
# ## All at once
#
# The defaults, as in training: most chances are small, so that a contour gets a few of these errors, and
# some contours hardly any.

# %%
batch = np.repeat(detached.frames[None], 6, axis=0)
sung = distort(batch, replace(Distortions(), key_st=0), np.random.default_rng(seed))
draws = {f"draw {number + 1}": Contour(frames) for number, frames in enumerate(sung)}
distortions_figure(detached, draws, "Six draws of the default rules, in one key")

# %%
display(hear(draws["draw 1"]))

# %% [markdown]
# ## Groups
#
# What does each rule contribute? Nobody trains 30 networks to know. The rules form four groups, and
# `without(rules, "tracker")` switches one off, `with_only(rules, "tracker")` all others. Each field
# belongs to one group; only `most_slices`, which distorts nothing, to none.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
for group, names in GROUPS.items():
    print(f"{group:8} {len(names):2} fields: {names[0]} to {names[-1]}")

# %% [markdown]
# How far does a group alone move the melody? Both are normalised, so that the key does not count.


# %%
def moved(rules, draws=2000 if profile == "full" else 400):
    many = np.repeat(melody.frames[None], draws, axis=0)
    out = normalise(distort(many, rules, np.random.default_rng(seed)), "key")
    off_st = 5.52 * np.abs(out[..., 0] - normalise(many, "key")[..., 0])
    return off_st[out[..., 1] > 0].mean(), out[..., 1].mean() / many[..., 1].mean()


rows = {f"only {group}": moved(with_only(Distortions(), group)) for group in GROUPS}
rows |= {f"without {group}": moved(without(Distortions(), group)) for group in GROUPS}
rows["all rules"] = moved(Distortions())
table = pd.DataFrame(rows, index=["mean error (semitones)", "voiced share kept"]).T
table.round(2)

# %% [markdown]
# Most of the error comes from the group *pitch*, as it should. *Voicing* moves a little too, because
# the median by which we normalise is that of other frames. *Time* moves no pitch: it works before
# `distort`, on the positions.

# %%
error_st = table["mean error (semitones)"]
assert error_st["only time"] == 0
assert error_st["only pitch"] > 2 * error_st["without pitch"]

# %% [markdown]
# ## Distorted enough? Real hums as the ruler
#
# `qbhkit bench hum_statistics` lays real hums (MIR-QBSH, the 13 singers that may be trained on) along
# their songs, does the same with distorted contours of the same stretches, and measures both alike.
# KS is the largest gap between the two cumulative distributions: 0 is the same, 1 is entirely apart.

# %%
results = json.loads(Path("../data/results/hum_statistics.json").read_text("utf-8"))
statistics = results["statistics"]
rows = {
    (name, side): {f"{q}%": value for q, value in block[side]["quantiles"].items()}
    for name, block in statistics.items()
    for side in ("real", "distorted")
}
pd.DataFrame(rows).T.round(2)

# %%
hum_statistics_figure(results)

# %% [markdown]
# Blue areas are real hums, the orange line is distorted contours, dotted lines are medians. In **pitch and
# tempo** the rules come close: interval errors, spread within a note, drift and local tempo lie nearly
# on each other. In **voicing** they do not: the voice of a real hum goes off about once a second, for
# a frame or two, as between syllables. The songs have few rests, and the rules do not cut enough new ones.

# %%
ks = {name: block["ks"] for name, block in statistics.items()}
assert max(ks[name] for name in ("interval_error", "drift", "tempo", "local_tempo")) < 0.2
assert min(ks[name] for name in ("voiced_share", "gap_rate")) > 0.3

# %% [markdown]
# An alignment forgives: it bends the hum towards the song, and so hides part of every error, in both
# alike. That is why the two are compared, and neither is called the truth about singers.

# %% [markdown]
# ## Beside a real hum
#
# *Oh! Susanna* is one of the 48 songs of MIR-QBSH. Where the corpus lies in the data folder, a singer's hum
# is laid along our melody: `align_contours` finds which moment of the hum belongs to which moment of the tune.
# We take the one of the first six that lies nearest.

# %%
data = Path(data_dir) if data_dir else default_data_dir()
tracker = get_tracker()
try:
    hums = [hum for hum in MirQbsh(data / "mir-qbsh").hums() if hum.song_id == "00036"]
    recordings = [load(hum.path, tracker.rate_hz) for hum in hums[:6]]
    contours = [from_f0(tracker.track(recording)) for recording in recordings]
    paths = [align_contours(contour, melody) for contour in contours]
    nearest = int(np.argmin([path.distance_st for path in paths]))
    real, heard, at = recordings[nearest], contours[nearest], paths[nearest]
    when_s = (np.arange(len(melody)) + 0.5) * melody.hop_s
    positions = np.interp(when_s, at.song_s, at.hum_s, left=-1, right=-1) / heard.hop_s
    beside = {"a real hum": Contour(stretch(heard.frames, positions)).transposed(-at.key_st)}
    display(distortions_figure(melody, beside | draws, "A real hum, and the draws of above", 4))
    display(Audio(real.samples, rate=real.rate_hz))
except QbhError:
    print("No real hum here: 'qbhkit data fetch mir-qbsh' brings 4,431 of them.")

# %% [markdown]
# ## Exercises
#
# 1. Real hums have about ten gaps in ten seconds. Count those of the default rules on `melody`, and
#    strengthen the staccato rule until they agree. What happens to the share of voiced frames?
# 2. Distort the melody and its transposition by 7 semitones with the same generator. What is left of the
#    difference after `normalise(..., "key")`?
# 3. Which rule breaks the melody most for your frontend? Raise it alone, with `hear(distorted(...))`.
#
# <details><summary>Solutions</summary>
#
# 1. About twice as many gaps, and the share of voiced frames comes near that of real hums, too.
#    ```python
#    def gaps(rules):
#        many = np.repeat(melody.frames[None], 400, axis=0)
#        voiced = distort(many, rules, np.random.default_rng(seed))[..., 1] > 0
#        ends = voiced[:, :-1] & ~voiced[:, 1:]
#        return 10 * ends.sum(axis=1).mean() / melody.duration_s, voiced.mean()
#
#    crisp = replace(Distortions(), staccato_chance=0.9, staccato_share=0.5)
#    print(gaps(Distortions()), gaps(crisp))
#    ```
# 2. Rounding only.
#    ```python
#    pair = [distort(contour.frames[None], Distortions(), np.random.default_rng(1))
#            for contour in (melody, melody.transposed(7))]
#    print(np.abs(normalise(pair[0], "key") - normalise(pair[1], "key")).max())
#    ```
# 3. Wrong notes, for most: a melody is its steps, and each wrong note breaks two.
#    ```python
#    display(hear(distorted(melody, wrong_note=0.4)))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Rules of time choose what is read, rules of pitch and voicing how it is sung, rules of the tracker how it
#   is heard. Each is drawn anew for every contour, from a generator that the seed determines.
# - One rule is a field of `Distortions`, one experiment is `replace`, `without` or `with_only`.
# - Compare rules with real hums by the same ruler: the kit's are close in pitch and tempo, and too smooth
#   in voicing.
#
# Library functions used: [`qbhkit.embedding.augment.Distortions`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.distort`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.warp_positions`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.without`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.with_only`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.hum_pairs.align_contours`](../qbhkit/corpora/pairs.py),
# [`qbhkit.synthesis.singer.render_hum`](../qbhkit/melody/synthesis.py),
# [`qbhkit.figures.distortions_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.hum_statistics_figure`](../qbhkit/figures/results.py).
#
# Next: [05 · Encoder and loss](05_encoder_and_loss.ipynb).
