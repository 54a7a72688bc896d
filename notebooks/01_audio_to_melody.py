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
# # 01 · From audio to melody: the voice inside a song
#
# What you will learn:
# 1. what a melody extraction network takes as input, what it outputs every 10 ms, and how the output is
#    scored;
# 2. what the published network (Kum et al. 2020) looks like inside, and how to use its weights;
# 3. how a recorded song is added to the catalogue, and whether hums of its melody find it.

# %% tags=["parameters"]
profile = "tiny"  # full: with play buttons for the recorded song
seed = 0
data_dir = ""  # folder of the corpora; empty: $QBHKIT_DATA

# %%
import json
import platform
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Audio, Image, display
from mir_eval.sonify import pitch_contour

import qbhkit

print("qbhkit", qbhkit.__version__, "· Python", platform.python_version())
print("torch", torch.__version__, "· numpy", np.__version__)

# %% [markdown]
# ## A song whose melody is known
#
# The kit's synthetic singer sings a tune of O'Neill's collection (1903) on vowels, over an accompaniment:
# thirds and fifths below the tune, bass and drums from a General MIDI SoundFont. It contains no real
# recording, and the pitch of the voice is known exactly in every frame.

# %%
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.synthesis.mixing import MIX_HOP, MIX_RATE_HZ
from qbhkit.synthesis.singer import Voice, render_hum

tune = next(
    song for song in songs_of(music21_collection("oneills1850")) if song.title == "KILLARNEY"
)
notes = tune.notes[tune.notes[:, 0] < 10] - [0, 0, 12]
singer = Voice(style="vowels", timing_error=0, vibrato_st=0.4, scoop_st=0.7, consonants=0.3)
sung = render_hum(notes, singer, np.random.default_rng(seed))
voice = sung.audio.samples[::2]  # 16 to 8 kHz: the synthetic voice has little energy above 4 kHz
chords = np.concatenate([notes[::3] - [0, 0, below] for below in (3, 7, 12)])
chords[:, 1] = 1.0

# %%
from qbhkit.synthesis.accompaniment import arrange_accompaniment, render_parts
from qbhkit.synthesis.mixing import mix

length_s = len(voice) / MIX_RATE_HZ
parts = arrange_accompaniment(chords, 0.5, length_s, np.random.default_rng(seed))
accompaniment = render_parts(parts, length_s, MIX_RATE_HZ)
truth = np.where(sung.f0.voiced, sung.f0.frequency_hz, 0)
song = qbhkit.Audio(mix(voice, truth, accompaniment.samples, snr_db=3.0), MIX_RATE_HZ)
Audio(song.samples, rate=MIX_RATE_HZ)

# %% [markdown]
# ## The melody in one call
#
# `qbhkit.track` takes a path, or samples and their sample rate. It returns the f0 track: a frequency and a
# voicing confidence every 10 ms (0.5 is the threshold). The default tracker follows a voice over an
# accompaniment. It is `crnn-lite`, which ships with the kit. If the converted weights of the published
# network are in the data folder, that network is used instead.

# %%
f0 = qbhkit.track((song.samples, song.rate_hz))
print(len(f0.frequency_hz), "frames of", f0.hop_s, "s;", f"{f0.voiced.mean():.0%} are voiced")
print("Hz at 2, 4, 6 and 8 s:", f0.frequency_hz[200:1000:200].round(1))

# %% [markdown]
# ## What the network outputs
#
# Every 10 ms the network outputs 442 probabilities. Class 0 means that nobody sings. The other classes are
# pitches from MIDI 40 to 95 in steps of an eighth of a semitone. Top: the spectrogram with the true pitch and
# the estimated pitch. Middle: the probabilities of the pitches. Bottom: the voicing, which is one minus the
# probability of class 0.

# %%
from qbhkit.figures import melody_figure
from qbhkit.pitch.trackers import default_song_tracker, get_tracker

network = get_tracker(default_song_tracker())
melody = network.melody(song)
print(melody.posteriors.shape, "posteriors for", f"{song.duration_s:.1f} s")
melody_figure(song, melody.f0, melody.posteriors, "a rendered song", truth=sung.f0)

# %% [markdown]
# *Raw pitch accuracy* is the share of voiced frames whose estimated pitch is within 50 cents of the true
# pitch. *Raw chroma accuracy* ignores octave errors. *Voicing recall* is the share of voiced frames that are
# called voiced, *voicing false alarm* the share of unvoiced frames that are called voiced. *Overall accuracy*
# is the share of all frames that are right in voicing and pitch.

# %%
from qbhkit.metrics import melody_score

count = min(len(truth), len(melody.f0.voicing))
score = melody_score(truth[:count], melody.f0.frequency_hz[:count], melody.f0.voicing[:count])
pd.Series(score._asdict()).round(3).to_frame(f"{network.name} at +3 dB")

# %%
# NBVAL_CHECK_OUTPUT
print("pitch of the voiced frames over 0.75:", score.raw_pitch_accuracy > 0.75)
print("frames right over all over 0.7:", score.overall_accuracy > 0.7)

# %% [markdown]
# Listen to the estimated melody, as a plain tone mixed with the song:

# %%
times_s = (np.arange(count) + 0.5) * melody.f0.hop_s
tone_hz = np.where(melody.f0.voiced, melody.f0.frequency_hz, 0)[:count]
tone = pitch_contour(times_s, tone_hz, MIX_RATE_HZ, length=count * MIX_HOP)
Audio(song.samples[: len(tone)] + 0.2 * tone, rate=MIX_RATE_HZ)

# %% [markdown]
# ## The published network
#
# The kit implements the network of Kum et al. layer by layer: patches of 31 frames and 513 frequency bins,
# four residual blocks that each divide the frequency axis by four, a bidirectional LSTM, 442 classes. Here it
# runs with random weights, only to show the shapes. The trained weights belong to the authors. Download
# `ResNet_NS.hdf5` and the two normalisation files from their repository (keums/melodyExtraction_SSL), then
# run
#
#     qbhkit weights convert ResNet_NS.hdf5 x_data_mean_total_31.npy x_data_std_total_31.npy
#
# After that, `crnn` is the default tracker for songs.

# %%
# NBVAL_CHECK_OUTPUT
from qbhkit.pitch import crnn

published = crnn.MelodyCrnn().eval()
level_db = crnn.decibels(crnn.magnitudes(song.samples, 0, 62), 1.0)
x = torch.from_numpy(crnn.patches_of(level_db))[:, None]
print("patches", tuple(x.shape))
for number, block in enumerate(published.blocks, 1):
    x = block(x)
    print("block", number, tuple(x.shape))

# %%
# NBVAL_CHECK_OUTPUT
with torch.inference_mode():
    patches = torch.from_numpy(crnn.patches_of(level_db))
    print("states", tuple(published.states(patches).shape))
    print("logits", tuple(published(patches).shape))
print("weights:", f"{sum(p.numel() for p in published.parameters()):,}")

# %% [markdown]
# ## A recorded song
#
# "Let's Go Fishin'" by Karissa Hobbs (CC BY 3.0) is the example recording of librosa (`librosa.ex("fishin")`
# downloads it). The recording is not part of this repository. `qbhkit bench song` drew this figure of ten
# seconds of it. There is no ground truth for this recording. Instead, check whether the line follows the
# harmonics of the voice.

# %%
Image("song_melody.png", width=900)

# %% [markdown]
# If you have the recording, put it into the data folder as
# `singing/songs/Karissa_Hobbs_-_Lets_Go_Fishin.hq.ogg`. The full profile then draws the figure again. It also
# plays the recording, first alone and then with the extracted melody.

# %%
from qbhkit.audio import load
from qbhkit.storage import data_dir as default_data_dir

folder = Path(data_dir) if data_dir else default_data_dir()
path = folder / "singing" / "songs" / "Karissa_Hobbs_-_Lets_Go_Fishin.hq.ogg"
if path.is_file() and profile == "full":
    whole = load(path, MIX_RATE_HZ)
    recording = qbhkit.Audio(whole.samples[62 * MIX_RATE_HZ : 72 * MIX_RATE_HZ], MIX_RATE_HZ)
    real = network.melody(recording)
    display(melody_figure(recording, real.f0, real.posteriors, "Let's Go Fishin'", span_s=(0, 10)))
    times_s = (np.arange(len(real.f0.voicing)) + 0.5) * real.f0.hop_s
    tone_hz = np.where(real.f0.voiced, real.f0.frequency_hz, 0)
    tone = pitch_contour(times_s, tone_hz, MIX_RATE_HZ, length=len(recording.samples))
    display(Audio(recording.samples, rate=MIX_RATE_HZ))
    display(Audio(recording.samples + 0.1 * tone, rate=MIX_RATE_HZ))
else:
    print("No real recordings here (or the tiny profile): all sound above was rendered.")

# %% [markdown]
# ## Where nobody sings
#
# People also hum riffs. With `target="lead"`, `qbhkit.track` follows the lead instrument wherever nobody sings
# for some seconds. Here a trumpet plays the tune that was sung above.

# %%
# NBVAL_CHECK_OUTPUT
from qbhkit.synthesis.accompaniment import Part

trumpet = render_parts([Part(56, notes, 100)], length_s, MIX_RATE_HZ)
riff = mix(trumpet.samples[: len(voice)], truth, accompaniment.samples, snr_db=3.0)
for target in ("voice", "lead"):
    played = qbhkit.track((riff, MIX_RATE_HZ), target=target)
    print(target, "found in more than half of the time:", played.voiced.mean() > 0.5)

# %% [markdown]
# ## Into the catalogue
#
# The catalogue stores the contour of a song: one frame every 100 ms, with pauses as unvoiced frames (notebook
# 03). `qbhkit catalogue build my_songs/ --out catalogue/` tracks and stores a whole folder of songs, with
# `target="lead"`. An answer then says whether its seconds are `instrumental`.

# %%
from qbhkit.figures import contour_figure

contour_figure(qbhkit.to_contour(f0), "The melody that was found, every 100 ms")

# %% [markdown]
# Can a recorded song be found by its extracted melody? `qbhkit bench song` adds it to the 2,048 songs of the
# MIREX database. Then it takes windows of the extracted melody, distorts them to imitate hums (key, tempo,
# wrong notes, gaps), and searches for them. The recorded result:

# %%
# NBVAL_CHECK_OUTPUT
found = json.loads(Path("../data/results/song_end_to_end.json").read_text("utf-8"))
print(found["song"], "among", found["songs"], "songs,", len(found["ranks"]), "distorted hums")
print(f"top-1 {found['top1']:.2f}, top-10 {found['top10']:.2f}, MRR {found['mrr']:.2f}")

# %% [markdown]
# ## Exercises
#
# 1. Make the accompaniment louder (`snr_db=-5.0`) and softer (`10.0`). Which measure gets worse first?
# 2. Let an instrument double the voice: add a flute, `Part(73, notes, 100)`, to the accompaniment. Is the voice
#    still found?
#
# <details><summary>Solutions</summary>
#
# 1. Voicing recall. As the accompaniment gets louder, the network first misses voiced frames. It follows
#    wrong pitches only at higher levels.
#    ```python
#    levels = {}
#    for snr_db in (10.0, 3.0, -5.0):
#        louder = mix(voice, truth, accompaniment.samples, snr_db)
#        tracked = network.melody(qbhkit.Audio(louder, MIX_RATE_HZ)).f0
#        at_level = melody_score(truth[:count], tracked.frequency_hz[:count], tracked.voicing[:count])
#        levels[f"{snr_db:+.0f} dB"] = at_level._asdict()
#    display(pd.DataFrame(levels).T.round(3))
#    ```
# 2. The pitch is right as often as before, because voice and flute have the same notes. But there are more
#    false alarms in the rests: if the flute continues there, the network is less sure that nobody sings.
#    ```python
#    from qbhkit.synthesis.accompaniment import Part
#
#    with_flute = render_parts([*parts, Part(73, notes, 100)], length_s, MIX_RATE_HZ)
#    fluted = mix(voice, truth, with_flute.samples, 3.0)
#    tracked = network.melody(qbhkit.Audio(fluted, MIX_RATE_HZ)).f0
#    doubled = melody_score(truth[:count], tracked.frequency_hz[:count], tracked.voicing[:count])
#    display(pd.DataFrame({"without": score, "with a flute": doubled}, score._fields).T.round(3))
#    ```
# </details>

# %% [markdown]
# ## What to remember
#
# - A melody network answers two questions every 10 ms: does somebody sing, and at which pitch?
# - It is trained to follow a voice and to ignore the accompaniment. A tracker for a single voice follows the
#   loudest source.
# - Once its melody is extracted, a recorded song is a contour like any other. The catalogue treats it like a
#   song made from notes.
#
# Library functions used: [`qbhkit.track`](../qbhkit/pitch/trackers/__init__.py),
# [`qbhkit.synthesis.singer.render_hum`](../qbhkit/synthesis/singer.py),
# [`qbhkit.synthesis.accompaniment.arrange_accompaniment`](../qbhkit/synthesis/accompaniment.py),
# [`qbhkit.synthesis.accompaniment.render_parts`](../qbhkit/synthesis/accompaniment.py),
# [`qbhkit.synthesis.mixing.mix`](../qbhkit/synthesis/mixing.py),
# [`qbhkit.pitch.trackers.default_song_tracker`](../qbhkit/pitch/trackers/__init__.py),
# [`qbhkit.metrics.melody_score`](../qbhkit/metrics.py),
# [`qbhkit.pitch.crnn.MelodyCrnn`](../qbhkit/pitch/crnn.py),
# [`qbhkit.figures.melody_figure`](../qbhkit/figures/melodies.py).
#
# Next: [02 · Trackers](02_trackers.ipynb).
