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
# 1. every rule that the kit uses to make a written melody look like a hum, with figures and sound;
# 2. how to switch rules on and off, one by one or in groups, and how strong the effect of each group is;
# 3. how close the result is to real hums, by the same measures.

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

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())

# %% [markdown]
# ## Why hum wrongly?
#
# The network of the next notebook has to learn that a tune and a hum of that tune are the same. There are
# thousands of tunes but hardly any hums of them. So rules imitate the errors of hummers, and a tune gets new
# errors each time it appears in a training batch.
#
# The whole notebook uses one melody as its example. It is in O'Neill's collection (1903, public domain),
# where the tune is called *The Brave Volunteers*. From its fourth second on, the tune is *Oh! Susanna*. We
# take that phrase, slower and lower.

# %%
from qbhkit.contour import from_notes
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.figures import contour_figure

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
# To play a contour, the kit's synthetic voice sings each of its 100 ms frames exactly. Every sound below is
# made this way.

# %%
from qbhkit.synthesis.singer import Voice, render_hum

print("No real recordings here: every sound below is rendered by the kit.")
STEADY = Voice(note_error_st=0, timing_error=0, vibrato_st=0, gap=0, glide_s=0.04)


def sing(contour, most_s=5.0):
    at = np.flatnonzero(contour.voiced[: round(most_s / contour.hop_s)])
    frames = np.stack([at / 10, np.full(len(at), 0.1), contour.pitch_st[at]], axis=1)
    sound = render_hum(frames, STEADY, np.random.default_rng(seed)).audio
    return Audio(soxr.resample(sound.samples, sound.rate_hz, 8000), rate=8000)


display(sing(melody))

# %% [markdown]
# ## One rule at a time
#
# `Distortions` holds the probability (the *chance*) and the strength of every rule. `with_only(rules)`
# switches all rules off. `replace` then switches one on. With a chance of 1, the rule is applied to every
# contour.

# %%
from qbhkit.embedding.augment import Distortions, distort, with_only

OFF = with_only(Distortions())


def distorted(contour, draw=seed, **rules):
    single = replace(OFF, **rules)
    sung = distort(contour.frames[None], single, np.random.default_rng(draw))
    return qbhkit.Contour(sung[0])


np.testing.assert_array_equal(distorted(melody).frames, melody.frames)

# %% [markdown]
# ### Time
#
# Time rules do not change pitches. For each frame of the hum, `warp_positions` computes the position in the
# song that the frame is taken from. The hum may begin earlier or later than the song's window, be faster or
# slower, and change its tempo from slice to slice. The grey line is the melody, the blue line its distorted
# version.


# %%
from qbhkit.embedding.augment import warp_positions
from qbhkit.embedding.windows import Reading, stretch
from qbhkit.figures import distortions_figure


def warped(draw=seed, **rules):
    rng, count = np.random.default_rng(draw), len(melody)
    start, length = np.zeros(1), np.full(1, count)
    positions = warp_positions(start, length, Reading(count), replace(OFF, **rules), rng)
    return qbhkit.Contour(stretch(melody.frames, positions)[0])


versions = {
    "begins elsewhere": warped(start_shift=0.15, draw=2),
    "slower or faster": warped(tempo_octaves=0.4, draw=3),
    "uneven tempo": warped(slice_tempo=0.5, draw=5),
}
distortions_figure(melody, versions, "Rules of time")

# %% [markdown]
# ### Pitch
#
# Some of these rules change the whole tune, others only single notes or intervals. Changes of key and range,
# drift and modulation imitate errors of memory and hearing. Notes left out or added imitate a tune that is
# only half remembered. Glides imitate the voice.

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
# A change of key moves every frame by the same amount. It looks large but has no effect, because `normalise`
# removes it.

# %%
from qbhkit.contour import normalise

np.testing.assert_allclose(
    normalise(versions["another key"].frames, "key"), normalise(melody.frames, "key"), atol=1e-5
)

# %% [markdown]
# A note that is left out becomes a rest, or the note before it is held longer. A modulation changes the key
# once, at the beginning of a note. After that, the new key stays. Listen to these two, and to the glides:

# %%
for name in ("notes left out", "modulation midway", "glides"):
    print(name)
    display(sing(versions[name]))

# %% [markdown]
# ### Voicing
#
# These rules change which frames are voiced. To show how rests appear and disappear, we need a melody with
# rests. So we use the same melody with each note a little shorter.

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
# Filling and legato hold the previous note. They never add a glide through a rest.

# %%
filled = versions["all rests sung through"]
assert filled.voiced[: np.flatnonzero(detached.voiced)[-1]].all()
assert set(np.unique(filled.pitch_st)) <= set(np.unique(detached.pitch_st))

# %% [markdown]
# ### Tracker
#
# These errors are made by the pitch tracker, not by the hummer. The tracker mistakes noise for pitch,
# mistakes an overtone for the fundamental, or detects no pitch at all.

# %%
versions = {
    "jitter": distorted(melody, jitter_st=0.6),
    "absurd frames": distorted(melody, absurd_chance=1, absurd_share=0.3, draw=3),
    "notes an octave off": distorted(melody, octave_note_chance=1, octave_note_share=0.15, draw=3),
    "single frames lost": distorted(melody, lost_frame_chance=1, lost_frame_share=0.15),
}
distortions_figure(melody, versions, "Rules of the tracker", columns=4)

# %%
display(sing(versions["notes an octave off"]))

# %% [markdown]
# ## All at once
#
# These are the default rules, as in training. Most chances are small. So most contours get a few of these
# errors, and some get hardly any.

# %%
batch = np.repeat(detached.frames[None], 6, axis=0)
sung = distort(batch, replace(Distortions(), key_st=0), np.random.default_rng(seed))
draws = {f"draw {number + 1}": qbhkit.Contour(frames) for number, frames in enumerate(sung)}
distortions_figure(detached, draws, "Six draws of the default rules, in one key")

# %%
display(sing(draws["draw 1"]))

# %% [markdown]
# ## Groups
#
# What does each rule contribute? Training 30 networks to find out would be expensive. So the rules are
# divided into four groups. `without(rules, "tracker")` switches one group off. `with_only(rules, "tracker")`
# switches all other groups off. Each field belongs to one group, except `most_slices`, which is not a
# distortion of its own.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
from qbhkit.embedding.augment import GROUPS, without

for group, names in GROUPS.items():
    print(f"{group:8} {len(names):2} fields: {names[0]} to {names[-1]}")

# %% [markdown]
# How far does each group alone move the melody? Both versions are normalised, so the key makes no difference.


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
# Most of the error comes from the group *pitch*, as intended. *Voicing* also moves the melody a little: other
# frames are voiced, so `normalise` subtracts a different median. *Time* does not move any pitch here, because
# its rules change the positions before `distort` is called.

# %%
error_st = table["mean error (semitones)"]
assert error_st["only time"] == 0
assert error_st["only pitch"] > 2 * error_st["without pitch"]

# %% [markdown]
# ## Distorted enough? A comparison with real hums
#
# `qbhkit bench hum_statistics` aligns real hums with their songs (MIR-QBSH, the 13 singers that may be used
# for training). It does the same with distorted contours of the same passages, and computes the same
# statistics for both. KS (Kolmogorov-Smirnov) is the largest difference between the two cumulative
# distributions: 0 means that they are equal, 1 that they do not overlap.

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
from qbhkit.figures import hum_statistics_figure

hum_statistics_figure(results)

# %% [markdown]
# Blue areas show real hums, orange lines show distorted contours, and dotted lines show medians. In **pitch
# and tempo** the distorted contours are close to real hums: the curves of interval error, spread within a
# note, drift and local tempo nearly coincide. In **voicing** they are not close. A real hum pauses about once
# a second, for a frame or two, as between syllables. The songs have few rests, and the rules do not add
# enough new ones.

# %%
ks = {name: block["ks"] for name, block in statistics.items()}
assert max(ks[name] for name in ("interval_error", "drift", "tempo", "local_tempo")) < 0.2
assert min(ks[name] for name in ("voiced_share", "gap_rate")) > 0.3

# %% [markdown]
# An alignment hides part of every error, because it bends the hum towards the song. This is true of real and
# distorted hums alike. So the two can be compared with each other, but neither shows how large the errors of
# singers really are.

# %% [markdown]
# ## Next to a real hum
#
# *Oh! Susanna* is one of the 48 songs of MIR-QBSH. If the corpus is in the data folder, this cell aligns a
# real hum with our melody. `align_contours` finds which moment of the hum belongs to which moment of the
# tune. Of the first six hums, we take the one that is closest to the melody.

# %%
from qbhkit.corpora.folders import MirQbsh
from qbhkit.embedding.hum_pairs import align_contours
from qbhkit.storage import data_dir as default_data_dir

data = Path(data_dir) if data_dir else default_data_dir()
try:
    recorded = MirQbsh(data / "mir-qbsh").hums("year2009")
    recordings = [hum.path for hum in recorded if hum.song_id == "00036"]
    contours = [qbhkit.to_contour(path) for path in recordings[:6]]
    paths = [align_contours(contour, melody) for contour in contours]
    nearest = int(np.argmin([path.distance_st for path in paths]))
    real, at = contours[nearest], paths[nearest]
    when_s = (np.arange(len(melody)) + 0.5) * melody.hop_s
    positions = np.interp(when_s, at.song_s, at.hum_s, left=-1, right=-1) / real.hop_s
    aligned = qbhkit.Contour(stretch(real.frames, positions)).transposed(-at.key_st)
    beside = {"a real hum": aligned} | draws
    display(distortions_figure(melody, beside, "A real hum, and the draws from above", 4))
    display(Audio(str(recordings[nearest])))
except qbhkit.QbhError:
    print("No real hum here: 'qbhkit data fetch mir-qbsh' downloads 4,431 of them.")

# %% [markdown]
# ## The other side: the song
#
# So far only the hum had errors. But the melody of a recorded song is what a tracker finds in it: it loses
# frames, takes instruments for the voice, and mistakes octaves. `SongFaults` are rules that imitate this. A
# training that sets `song_faults` draws faults for each song of a batch; `stage1-all` and `best` were trained
# so. (All rows of this batch hold one melody, so no other instrument can be seen.)

# %%
from qbhkit.embedding.song_faults import SongFaults, as_heard

batch = np.repeat(melody.frames[None], 3, axis=0)
heard = as_heard(batch, SongFaults(heard=1.0), np.random.default_rng(seed))
versions = {f"draw {number}": qbhkit.Contour(frames) for number, frames in enumerate(heard, 1)}
distortions_figure(melody, versions, "A melody as a tracker might find it in a recording", 3)

# %% [markdown]
# How strong are the faults? `qbhkit bench real_songs` compares trackers with the notes that people typed for
# eight recordings, and with the notes of songs that the kit rendered. It does the same with the rules. The
# strengths were set by hand until the rules had about the mean of `crnn-lite` and Melodia on the recordings,
# so the agreement there is a fit. On rendered songs the lost frames lie in longer runs than in the
# recordings. Each share is followed by the part of it in runs of one or two frames (100 to 200 ms).

# %%
measured = json.loads(Path("../data/results/real_songs.json").read_text("utf-8"))
columns = {
    f"{name}, {where}": found[name]
    for name in ("crnn-lite", "melodia", "song_faults")
    for where, found in measured["faults"].items()
}
table = pd.DataFrame(columns)
table.round(2)

# %%
kinds = ["lost", "octave", "otherwise", "filled"]
between = table[["crnn-lite, recordings", "melodia, recordings"]].mean(axis=1)
assert (table["song_faults, recordings"] - between)[kinds].abs().max() < 0.05

# %% [markdown]
# The same melodies by their shape, beside those that MedleyDB's editors corrected by hand: the share of
# frames under 0.15 semitones from the one before (held), 0.15 to 1.5 (slid: glides, vibrato) and over 6
# (leapt), the voiced share, and the median lengths of what is sung and of the rests between. The rules still leap
# far more often than the trackers do.

# %%
pd.DataFrame(measured["shapes"]).T.round(2)

# %% [markdown]
# ## Exercises
#
# 1. Real hums have about ten gaps in ten seconds. Count the gaps that the default rules make in `melody`, and
#    strengthen the staccato rule until the numbers agree. What happens to the share of voiced frames?
# 2. Distort the melody and its transposition by 7 semitones with the same generator. How large is the
#    difference after `normalise(..., "key")`?
# 3. Which rule makes the melody hardest to recognise? Raise rules one at a time, with `sing(distorted(...))`.
#
# <details><summary>Solutions</summary>
#
# 1. The stronger rule makes about twice as many gaps. The share of voiced frames also comes close to that of
#    real hums.
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
# 2. Rounding errors only.
#    ```python
#    pair = [distort(contour.frames[None], Distortions(), np.random.default_rng(1))
#            for contour in (melody, melody.transposed(7))]
#    print(np.abs(normalise(pair[0], "key") - normalise(pair[1], "key")).max())
#    ```
# 3. For most listeners, wrong notes. A melody is a sequence of intervals, and each wrong note changes two of them.
#    ```python
#    display(sing(distorted(melody, wrong_note=0.4)))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Time rules choose which moments of the song are hummed. Pitch and voicing rules change how they are sung.
#   Tracker rules imitate tracking errors. Each rule is drawn again for every contour, from a seeded random
#   generator.
# - Each rule is set by fields of `Distortions`. For an experiment, change them with `replace`, `without` or
#   `with_only`.
# - The song has errors, too, if a tracker found its melody in a recording.
# - Compare rules with real hums by the same measure. The kit's rules are close in pitch and tempo, but make
#   too few pauses.
#
# Library functions used: [`qbhkit.embedding.augment.Distortions`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.distort`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.warp_positions`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.without`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.augment.with_only`](../qbhkit/embedding/augment.py),
# [`qbhkit.embedding.song_faults.SongFaults`](../qbhkit/embedding/song_faults.py),
# [`qbhkit.embedding.song_faults.as_heard`](../qbhkit/embedding/song_faults.py),
# [`qbhkit.embedding.hum_pairs.align_contours`](../qbhkit/embedding/hum_pairs.py),
# [`qbhkit.synthesis.singer.render_hum`](../qbhkit/synthesis/singer.py),
# [`qbhkit.figures.distortions_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.hum_statistics_figure`](../qbhkit/figures/results.py).
#
# Next: [05 · Encoder and loss](05_encoder_and_loss.ipynb).
