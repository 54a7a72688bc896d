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
# # 02 · Trackers: who hears the tune, and how fast
#
# What you will learn:
# 1. what a pitch tracker has to decide every 10 ms, and the five numbers that say how well it does;
# 2. how to swap one tracker for another, and what each of them is good at;
# 3. how to choose one, and how to add your own.

# %% tags=["parameters"]
profile = "tiny"  # "full" also runs the slow trackers, on longer hums
seed = 0
data_dir = ""  # not needed here: hums are rendered, and real results are read from data/results

# %%
import inspect
import json
import platform
import time
from pathlib import Path

import numpy as np
import pandas as pd
import soxr
from IPython.display import Audio, display

import qbhkit
from qbhkit.audio import Audio as Recording
from qbhkit.errors import QbhError
from qbhkit.figures import f0_figure, tracker_accuracy
from qbhkit.metrics import melody_score
from qbhkit.pitch.trackers import TRACKERS, get_tracker, swift_f0
from qbhkit.synthesis.degrade import add_noise
from qbhkit.synthesis.singer import Voice, render_hum

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())
print("No real recordings here: every sound below is rendered by the kit.")

# %% [markdown]
# ## Two questions every 10 ms
#
# Is there a voice, and how high is it? The field's measures (`mir_eval`) keep the two apart:
#
# - *raw pitch accuracy*: of the frames that are sung, how many are within 50 cents (half a semitone)?
# - *raw chroma accuracy*: the same, but a slip of an octave is forgiven;
# - *voicing recall* and *voicing false alarm*: of the frames that are sung, and of those that are not,
#   how many are called sung?
# - *overall accuracy*: of all frames, how many are right in both respects?
#
# Six frames by hand: four are sung, of which one is found an octave too high and one is called silent.
# Two are silent, of which one is called sung.

# %% tags=["nbval-check-output"]
# NBVAL_CHECK_OUTPUT
sung_hz = np.array([220, 220, 220, 220, 0, 0.0])
heard_hz = np.array([220, 221, 440, 220, 300, 0.0])
voicing = np.array([0.9, 0.9, 0.9, 0.2, 0.9, 0.0])
for measure, share in melody_score(sung_hz, heard_hz, voicing)._asdict().items():
    print(f"{measure:20} {share:.2f}")

# %% [markdown]
# ## Hums with a pitch we know
#
# The synthesiser writes down what it sings, so nobody has to label anything. One tune: hummed, sung on
# vowels, and whistled, each clean and in noise of the same level as the voice.

# %%
pitches = (57, 59, 60, 64, 62, 60, 59, 57, 62, 65, 64, 60)[: 12 if profile == "full" else 8]
notes = np.array([[0.4 * n, 0.38, pitch] for n, pitch in enumerate(pitches)])
hums = {
    style: render_hum(notes, Voice(style=style), np.random.default_rng(seed))
    for style in ("mm", "vowels", "whistle")
}
rng = np.random.default_rng(seed)
rate_hz = hums["mm"].audio.rate_hz
sounds = {}
for style, hum in hums.items():
    sounds[style, "clean"] = hum.audio.samples
    sounds[style, "noise 0 dB"] = 0.5 * add_noise(hum.audio.samples, 0, 0, rng)
for (style, condition), samples in sounds.items():
    print(style, condition)
    display(Audio(samples[: 3 * rate_hz].astype(np.float32), rate=rate_hz))

# %% [markdown]
# ## Swap the tracker
#
# All trackers have the same three things: a `name`, the `rate_hz` they want, and `track(audio)`, which
# gives pitch and voicing every 10 ms. `get_tracker(name)` imports a package only when it is asked for,
# and says what to install where it is missing.

# %%
slow = {"torchcrepe-full", "torchcrepe-tiny", "pyin"} if profile == "tiny" else set()
trackers = {}
for name in TRACKERS:
    try:
        if name not in slow:
            trackers[name] = get_tracker(name)
    except QbhError as error:
        print(f"{name} is left out:", str(error).split(":")[0].split("/")[-1])
print("slow, left to the full profile:", ", ".join(sorted(slow)) or "none")

# %%
tracks, rows = {}, {}
for name, tracker in trackers.items():
    tracker.track(Recording(np.zeros(tracker.rate_hz, np.float32), tracker.rate_hz))  # wake it up
    for (style, condition), samples in sounds.items():
        heard = soxr.resample(samples.astype(np.float32), rate_hz, tracker.rate_hz)
        began = time.perf_counter()
        track = tracker.track(Recording(heard, tracker.rate_hz))
        factor = (time.perf_counter() - began) / track.duration_s
        truth = np.where(hums[style].f0.voiced, hums[style].f0.frequency_hz, 0)
        score = melody_score(truth, track.frequency_hz, track.voicing)
        tracks[name, style, condition] = track
        rows[name, style, condition] = {**score._asdict(), "real_time_factor": factor}
scores = pd.DataFrame(rows).T
scores.index.names = ["tracker", "style", "condition"]
scores["overall_accuracy"].unstack(["style", "condition"]).round(2)

# %% [markdown]
# Clean hums are no challenge. In noise the trackers part ways, and a whistle, which has no upper
# partials, is a test of its own: a tracker that looks for partials may not hear it at all.

# %%
assert scores.loc["swift-f0", "mm", "clean"].raw_pitch_accuracy > 0.95
assert scores.loc["whistle", "whistle", "clean"].raw_pitch_accuracy > 0.9
np.testing.assert_array_less(scores["voicing_recall"], 1 + 1e-9)

# %% [markdown]
# Speed: seconds of work for a second of sound, on these short hums (median; it differs from run to
# run, so the recorded results below measure it on longer audio, alone on the machine).

# %%
scores["real_time_factor"].groupby("tracker").median().sort_values().round(3).to_frame()

# %% [markdown]
# ## See and hear it
#
# The grey band is what was sung; a line is what a tracker found, where it heard a voice.

# %%
shown = {
    name: tracks[name, "vowels", "noise 0 dB"]
    for name in ("swift-f0", "praat", "fcpe")
    if name in trackers
}
f0_figure(hums["vowels"].f0, shown, "Vowels in noise of the same level")

# %%
whistled = {
    name: tracks[name, "whistle", "clean"]
    for name in ("whistle", "swift-f0", "fcpe")
    if name in trackers
}
f0_figure(hums["whistle"].f0, whistled, "A whistle, clean")

# %% [markdown]
# And what the tracker heard in the noise, as a tone:

# %%
found = tracks["swift-f0", "vowels", "noise 0 dB"]
frequency = np.repeat(np.where(found.voiced, found.frequency_hz, 0), rate_hz // 100)
tone = 0.3 * np.sin(2 * np.pi * np.cumsum(frequency) / rate_hz) * (frequency > 0)
display(Audio(tone[: 3 * rate_hz].astype(np.float32), rate=rate_hz))

# %% [markdown]
# ## Real voices, recorded results
#
# `qbhkit bench melody` runs every tracker on real recordings of singers that nothing was trained on
# (MIR-QBSH, vocadito), the same voices under unseen accompaniments at four levels, two songs with the
# pitch that the published model found in them, and recordings that were degraded. Its results are kept in
# `data/results`; the recordings are not part of this repository.

# %%
results = json.loads(Path("../data/results/melody_bench.json").read_text("utf-8"))
table = {}
for name, block in results["trackers"].items():
    sets = block["sets"]
    table[name] = {
        "hums, raw pitch": sets["hums"]["raw_pitch_accuracy"],
        **{
            kind: sets.get(kind, {}).get("overall_accuracy", np.nan)
            for kind in ("hums", "songs +10 dB", "songs +5 dB", "songs 0 dB", "songs -5 dB")
        },
        "white noise, voiced": sets.get("white noise", {}).get("voicing_false_alarm", np.nan),
        "times real time": 1 / block["real_time_factor"],
        "MB": block["memory_mb"],
        "clips": sets["songs 0 dB"]["clips"],
    }
table = pd.DataFrame(table).T.sort_values("songs 0 dB", ascending=False)
table.round({"times real time": 1, "MB": 0, "clips": 0}).round(3)

# %% [markdown]
# Columns without a measure are overall accuracy. A tracker with fewer clips is too slow for all of them
# and heard one a singer; it is an open point below.

# %%
tracker_accuracy(results)

# %% [markdown]
# What spoils a hum, by overall accuracy:

# %%
kinds = ["as recorded", "half level", "8 bit", "clipped", "transposed", "reverberation"]
kinds += ["noise 10 dB", "noise 0 dB"]
degraded = {
    name: {kind: block["sets"][kind]["overall_accuracy"] for kind in kinds}
    for name, block in results["trackers"].items()
    if set(kinds) <= set(block["sets"])
}
pd.DataFrame(degraded).T.sort_values("noise 0 dB", ascending=False).round(3)

# %% [markdown]
# ## How to choose
#
# - **A hum, one voice, any microphone:** the default, `swift-f0`: fast, small, and hardly moved by noise.
# - **A whole song:** `crnn-lite`, which was trained to follow the voice and to leave the band alone. A
#   tracker made for one voice follows whatever is loudest.
# - **A whistle:** `whistle` reaches up to 6,000 Hz and needs no package.
# - **Licence:** Praat is GPL-3, PESTO LGPL-3, Melodia AGPL-3 (an extra of its own); the others are MIT
#   or ISC.
# - **Memory or speed:** see the table above; and measure on your own machine: `qbhkit bench melody --quick`.
#
# Wherever the kit tracks, the choice is a word: `qbhkit melody hum.wav --tracker pyin --out f0/`.

# %% [markdown]
# ## Write your own
#
# An adapter is one page: a class with a name, a rate and `track`. It maps its own confidence so that
# 0.5 is the threshold, and puts its frames on the 10 ms grid. This is the whole page of the default:

# %%
print(inspect.getsource(swift_f0))

# %% [markdown]
# Put yours beside it in `qbhkit/melody/trackers`, name it in `TRACKERS`, and every command, notebook and
# benchmark of the kit can use it.

# %% [markdown]
# ## Exercises
#
# 1. Make the noise pink (`add_noise(samples, 0, 1, rng)`). Which tracker loses most, and why?
# 2. Which tracker has the best raw pitch accuracy on the noisy vowels if its voicing is ignored?
#
# <details><summary>Solutions</summary>
#
# 1. Pink noise is strongest where voices have their fundamental: trackers that need clean low partials lose most.
#    ```python
#    pink = 0.5 * add_noise(hums["vowels"].audio.samples, 0, 1, np.random.default_rng(seed))
#    truth = np.where(hums["vowels"].f0.voiced, hums["vowels"].f0.frequency_hz, 0)
#    rows = {}
#    for name, tracker in trackers.items():
#        heard = soxr.resample(pink.astype(np.float32), rate_hz, tracker.rate_hz)
#        track = tracker.track(Recording(heard, tracker.rate_hz))
#        rows[name] = melody_score(truth, track.frequency_hz, track.voicing).overall_accuracy
#    white = scores.xs(("vowels", "noise 0 dB"), level=("style", "condition"))["overall_accuracy"]
#    print(pd.DataFrame({"white": white, "pink": rows}).sort_values("pink").round(2))
#    ```
# 2. Raw pitch accuracy asks for the pitch alone; the best of each measure:
#    ```python
#    vowels = scores.xs(("vowels", "noise 0 dB"), level=("style", "condition"))
#    print(vowels[["raw_pitch_accuracy", "overall_accuracy"]].idxmax())
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - Pitch and voicing are two questions; one number cannot answer both.
# - All trackers look alike from outside, so that a comparison is fair and a swap is one word.
# - Compare on the same recordings, in the same run, and on voices that nothing was trained on.
#
# Library functions used: [`qbhkit.pitch.trackers.get_tracker`](../qbhkit/melody/trackers/__init__.py),
# [`qbhkit.metrics.melody_score`](../qbhkit/melody/metrics.py),
# [`qbhkit.synthesis.singer.render_hum`](../qbhkit/melody/synthesis.py),
# [`qbhkit.synthesis.degrade.add_noise`](../qbhkit/melody/degrade.py),
# [`qbhkit.figures.f0_figure`](../qbhkit/figures/melodies.py),
# [`qbhkit.figures.tracker_accuracy`](../qbhkit/figures/results.py).
#
# Next: [03 · Contours](03_contours.ipynb).
