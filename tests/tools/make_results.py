"""Write data/results/README.md, with every table of results, from the JSON files beside it."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qbhkit.evaluation.ablation import table as ablation_lines
from qbhkit.metrics import intervals

RESULTS = Path(__file__).parents[2] / "data" / "results"
MEASURES = {"top1": "top-1", "top5": "top-5", "top10": "top-10", "mrr": "MRR"}
MATCH_FROM = ("start", "anywhere")


def result(name: str) -> Any:
    """Read one file of results."""
    return json.loads((RESULTS / f"{name}.json").read_text("utf-8"))


def table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in Markdown."""
    header = list(header)
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def scores(block: dict[str, Any], measures: Iterable[str] = MEASURES) -> list[str]:
    """Return the cells of a block of metrics, with 95% intervals where they were recorded."""
    cells = []
    for key in measures:
        low, high = block.get("intervals", {}).get(key, (None, None))
        limits = f" ({low:.2f}-{high:.2f})" if low is not None else ""
        cells.append(f"{block[key]:.3f}{limits}")
    return cells


def hums() -> str:
    """MIR-QBSH, all methods."""
    best, published = result("crossfold_best"), result("crossfold_published")
    rows = []
    for match_from in MATCH_FROM:
        found = result(f"hums_{match_from}")
        blocks = {
            "full, fine-tuned": best["methods"]["full"][match_from],
            "vote, fine-tuned": best[match_from],
            "vector, fine-tuned": best["methods"]["vector"][match_from],
            "vector, published configuration": published["methods"]["vector"][match_from],
            **found["methods"],
        }
        rows += [[match_from, name, *scores(block)] for name, block in blocks.items()]
    over_singers = [
        intervals(best["methods"]["full"][a]["ranks"], groups=result("hums_start")["singers"])
        for a in MATCH_FROM
    ]
    start, anywhere = (f"{one['top1'][0]:.2f}-{one['top1'][1]:.2f}" for one in over_singers)
    splits = [
        [match_from, *(f"{block['top1']:.3f}" for block in full["by_split"].values())]
        for match_from in MATCH_FROM
        for full in [result(f"hums_{match_from}")["methods"]["full"]]
    ]
    others = [
        [a, method, *scores(found[f"{a}, other years"])]
        for a in MATCH_FROM
        for method, found in {**best["methods"], "vote": best}.items()
    ]
    years = best["start, other years"]["n"]
    refused = [
        [a, years, *(f"{v:.3f}" for v in best["refusal"][f"{a}{key}"].values())]
        for years, key in (("2009", ""), ("the others", ", other years"))
        for a in MATCH_FROM
    ]
    return f"""## Hums of MIR-QBSH

{found["n"]} hums of the year 2009 (8 kHz, 8 bit, 8 s, 26 singers), from the wav files, with the default tracker, against the 48 songs
and 2,000 Essen folk songs. *start*: compared with the beginnings of songs; *anywhere*: with all of them.
95% bootstrap intervals over hums. Hums by the same singer are not independent samples: over singers, top-1 of *full, fine-tuned* is
{start} from the start and {anywhere} anywhere.

{table(["matched from", "method", *MEASURES.values()], rows)}

- *vector* (single vector) compares the whole hum as one vector, as the published system does. *vote* (window voting) lets windows of the hum vote.
  *full* (voting + alignment), the default, then aligns the best 200 songs with the hum. *end-to-end* is *full* on the states of the melody
  network instead of a pitch. *linear-scaling* and *dtw* are the classical rivals: they compare pitch, without any training.
- *Fine-tuned*: nine models, each of which scores only hums of songs and singers that it was not trained on (`qbhkit cross-validate best`).
  The shipped weights `best` were trained on all of these hums, so they have no number here. They and their siblings start
  from `stage1-all`, which learnt from three times as many songs as `stage1`.
- *Published configuration*: the published recipe, but for windows of 10 s instead of 20 and keys up to 18 semitones away, trained on
  the songs of `stage1` and the hums of 2009 (`qbhkit cross-validate published`). Its model card says why.
- All other rows: `stage1`, trained without hums (`qbhkit bench hums`).

{years:,} hums of the other years, by the same nine models, fine-tuned:

{table(["matched from", "method", *MEASURES.values()], others)}

These are **development numbers**: loss, distortions, query windows and the weight of the alignment were chosen on these hums. The
tracker's threshold was chosen on 13 of the singers; top-1 of stage 1 by *full*:

{table(["matched from", "those 13 singers", "the other 13"], splits)}

When a song is not in the catalogue, the kit should say so. At the threshold that keeps 90% of the right answers (cross-validated over songs):

{table(["matched from", "years", "right answers kept", "absent songs refused", "answers given that are right", "Brier score"], refused)}"""


def elsewhere() -> str:
    """IOACAS, larger catalogues, other lengths."""
    best, stage1, far = (result(n) for n in ("crossfold_best", "crossfold_stage1", "distractors"))
    ioacas = {
        "full, fine-tuned": best["methods"]["full"]["ioacas"],
        "vote, fine-tuned": best["ioacas"],
        "vote": stage1["ioacas"],
    }
    rows = [
        [f"{found['songs']:,} ({what})", match_from, *scores(found[match_from], ("top1", "top10"))]
        + [f"{found[match_from]['same_tune'][key]:.3f}" for key in ("top1", "top10")]
        for what, found in (("all", far["all"]), ("in no training set", far["held out"]))
        for match_from in MATCH_FROM
    ]
    song, takes = result("song_end_to_end"), result("takes")
    long, pairs = takes["long"], takes["takes"]
    lengths = ["8 s", "15 s", "30 s", "60 s"]
    alone = ("first alone", "second alone", "together")
    states = result("end_to_end")
    paths = [
        [match_from, name, *scores(block, ("top1", "top10"))]
        for match_from in MATCH_FROM
        for name, block in states[match_from]["methods"].items()
    ]
    return f"""## Other singers, other songs, larger catalogues

IOACAS: {ioacas["vote"]["n"]} queries that begin anywhere in the song (pitch by Praat, with its octave errors, rests lost) against its 298
songs and the {best["songs"]:,} above. The models were fine-tuned on some hums of MIR-QBSH (`crossfold_*.json`):

{table(["method", *MEASURES.values()], [[name, *scores(block)] for name, block in ioacas.items()])}

The hums of MIR-QBSH among every tune that the kit can read, stage 1 by *full* (`qbhkit bench distractors`). {len(far["all"]["near_duplicates"])} of the 48 songs
have variants there, which push each other down; the last two columns count variants as right:

{table(["songs", "matched from", "top-1", "top-10", "top-1, variants", "top-10, variants"], rows)}

One real recording (a voice over an accompaniment; melody by `crnn-lite`) among {song["songs"] - 1:,} songs: {len(song["ranks"])} hums made by rule of its own
melody find it first in {song["top1"]:.2f} of the cases, among ten in {song["top10"]:.2f} (`qbhkit bench song`). Hums by strangers are harder.

Longer hums: {long["hums"]} hums made by rule of pop songs that no model was trained on, among {long["songs"]:,} songs. Two takes:
{pairs["pairs"]} pairs of MIR-QBSH hums of one song, searched together (`qbhkit bench takes`). Top-1:

{table(lengths, [[f"{long[length]['top1']:.3f}" for length in lengths]])}

{table(["matched from", *alone], [[a, *(f"{pairs[a][name]['top1']:.3f}" for name in alone)] for a in MATCH_FROM])}

Without choosing a pitch: states of the melody network, distilled from stage 1 on rendered voices (`qbhkit bench end_to_end`). 13 of the singers
trained the melody network or chose its checkpoint; the model card counts the others apart.

{table(["matched from", "input", "top-1", "top-10"], paths)}"""


def ablation() -> str:
    """What each part of the recipe buys."""
    lines = ablation_lines(result("ablation"))
    keys = [f"{a} {measure}" for a in MATCH_FROM for measure in ("top1", "top10", "mrr")]
    rows = []
    for line in lines:
        several = line["seeds"] > 1
        cells = [
            f"{line[key]:.3f}" + (f" ± {line[f'{key} spread']:.3f}" if several else "")
            for key in [*keys, "ioacas mrr"]
        ]
        change, low, high = (100 * value for value in line["anywhere top1 against first"])
        against = "" if line == lines[0] else f"{change:+.1f} ({low:+.1f} to {high:+.1f})"
        rows.append([line["row"], line["seeds"], *cells, against])
    header = ["what differs", "seeds", "start: top-1", "top-10", "MRR", "anywhere: top-1", "top-10"]
    header += ["MRR", "IOACAS: MRR", "top-1 anywhere against the first row (95%, over hums)"]
    widest = max(line["anywhere top1 spread"] for line in lines)
    return f"""## What each part buys

![what each part buys](../../figures/ablation.svg)

Recipes that differ in one part, on a network half as wide as the shipped one; 800 steps of 256 pairs in stage 1 and 150 in stage 2 for all;
cross-validated on the same hums and songs, by window voting alone (`qbhkit ablate ablation --budget full`). With several seeds: the
mean and the largest distance from it. Seeds lie up to {100 * widest:.1f} points of top-1 anywhere from their mean.

{table(header, rows)}"""


def trackers() -> str:
    """Accuracy and speed of all trackers."""
    bench, crnn = result("melody_bench"), result("bench_crnn")
    most = max(block["sets"]["songs 0 dB"]["clips"] for block in bench["trackers"].values())
    wanted = [("hums", "raw_pitch_accuracy"), ("hums", "overall_accuracy")]
    wanted += [(f"songs {level} dB", "overall_accuracy") for level in ("+5", "0", "-5")]
    wanted += [("instrumental", "overall_accuracy"), ("agreement", "raw_pitch_accuracy")]
    rows = []
    ordered = sorted(
        bench["trackers"].items(),
        key=lambda item: -item[1]["sets"]["songs 0 dB"]["overall_accuracy"],
    )
    for name, block in ordered:
        sets, main = block["sets"], block["sets"]["songs 0 dB"]
        cells = [f"{sets[kind][key]:.3f}" if kind in sets else "-" for kind, key in wanted]
        low, high = main["overall_accuracy_interval"]
        cells[3] += f" ({low:.2f}-{high:.2f})"
        few = f" ({main['clips']} clips)" if main["clips"] < most else ""
        speed = f"{1 / block['real_time_factor']:.3g}"
        rows.append([name + few, *cells, speed, f"{block['memory_mb']:.0f}"])
    header = ["tracker", "hums, raw pitch", "hums, overall", "songs +5 dB", "songs 0 dB (95%)"]
    header += ["songs -5 dB", "instrumental", "published model", "times real time", "MB"]
    lite, melodia = (
        bench["trackers"][name]["sets"]["songs 0 dB"]["raw_pitch_accuracy"]
        for name in ("crnn-lite", "melodia")
    )
    return f"""## Pitch trackers

![accuracy against speed](../../figures/tracker_accuracy.svg)

{table(header, rows)}

Every tracker on the same recordings, in one run of `qbhkit bench melody` (two shared cores, `mir_eval`; the row crnn-lite-lead and the column *instrumental* were added by a later run). *hums*: 39 recordings by the 13
singers of MIR-QBSH that nothing was trained on, scored at their hand labels. *songs*: those and two vocadito solos over unseen POP909
accompaniments that are 5 dB softer than the voice, as loud, and 5 dB louder; overall accuracy, 95% bootstrap intervals over clips.
*Instrumental*: overall accuracy where an instrument, which no network has learnt from, plays the tune over such an accompaniment;
`crnn-lite` is meant to ignore it, `crnn-lite-lead` to follow it; trackers of a single voice follow what is loudest. *Published model*: raw pitch accuracy against what the published network (Kum et al., 2020) found in two recordings; its pitch files are
five semitones sharp, and we correct for that before scoring. Slow trackers were given one clip for each singer. *MB*: what 60 s add
to the memory of the loaded tracker. `melodia` calls nearly everything voiced, so the kit adds a voicing rule of its own; its raw pitch accuracy at 0 dB is
{melodia:.3f}, that of `crnn-lite` {lite:.3f}.

The published network is not in the table, because its weights are not ours to ship. With random weights it is {crnn["times_real_time"]["network"]:.1f} times faster than
real time (its convolutions alone: {crnn["times_real_time"]["convolutions_alone"]:.1f}) and takes {crnn["memory"]["peak_mb"]} MB for an hour of sound (`qbhkit bench crnn`). `melody_bench.json` also holds the
recipe, hashes, the other measures, and what noise, clipping, rooms and 8 bits do to a hum."""


def real_songs() -> str:
    """Real recordings, from the audio to the answer."""
    found = result("real_songs")
    tracked, names = found["trackers"], ["pitch_class_accuracy", "voiced_pitch_class_accuracy"]
    names += ["voicing_recall", "false_alarm"]
    rows = []
    for name, block in tracked.items():
        cells = [
            f"{block['mean'][key]:.3f} ({block['mean']['at_best_delay'][key]:.3f})" for key in names
        ]
        alone = block["instrumental_false_alarm"].values()
        rows.append([name, *cells, ", ".join(f"{share:.3f}" for share in alone)])
    header = ["tracker", "pitch class", "and voiced", "voicing recall", "false alarm"]
    searched, rendered = (
        [
            [name, method, *(f"{block[key]:.3f}" for key in ("top1", "top10", "mrr"))]
            for name, methods in found[key].items()
            for method, block in methods.items()
        ]
        for key in ("retrieval", "retrieval_rendered")
    )
    pop_hums = next(iter(found["retrieval_rendered"].values()))["full"]["n"]
    return f"""## Real recordings

{len(found["terms"])} songs with the notes that somebody typed for karaoke (`qbhkit bench real_songs`). Share of the typed notes' frames with the right pitch class
(within 60 cents, any octave); false alarm is the share of frames called voiced more than 0.3 s from any note. In brackets: at each song's best delay within
150 ms. *Instrumental*: the share called voiced where nobody sings.

{table([*header, "instrumental"], rows)}

{found["hums"]} hums synthesised from the typed notes, searched anywhere in {found["songs"]:,} songs: the recordings and {found["rendered"]} rendered songs (a minute of POP909 each, sung over its
accompaniment) by the melody that each tracker found, and {found["songs"] - found["rendered"] - len(found["terms"]):,} others by their notes. *Typed notes* is
the upper bound: the catalogue holds the notes that were hummed. Hums of one song are not independent samples.

{table(["melody from", "method", "top-1", "top-10", "MRR"], searched)}

{pop_hums} hums of the rendered songs in the same catalogues:

{table(["melody from", "method", "top-1", "top-10", "MRR"], rendered)}"""


def degraded() -> str:
    """Hums in noise, and sounds without a tune."""
    found = result("degraded_hums")
    rows = [
        [kind, *(f"{block[key]:.3f}" for key in ("top1", "top10")),
         *(f"{block[key]:+.1f}" for key in ("top1_loss", "top10_loss")),
         *(block[key] for key in ("refused", "confident", "wrong_confident"))]
        for kind, block in found["hums"].items()
    ]  # fmt: skip
    header = ["hum", "top-1", "top-10", "points of top-1 lost", "of top-10 lost", "refused"]
    none = [[kind, *block.values()] for kind, block in found["without_a_tune"].items()]
    return f"""## Degraded hums

{found["hums"]["clean"]["n"]} hums of MIR-QBSH (2009), searched anywhere in {found["songs"]:,} songs by *full* with weights that were not trained on hums (`qbhkit bench degraded_hums`).
Noises are 10 dB softer than the hum. A refused hum is a miss.

{table([*header, "confident", "confident and wrong"], rows)}

Sounds without a tune, which should not be answered as confident:

{table(["sound", "clips", "answered", "confident"], none)}"""


def altered() -> str:
    """Hums that leave their song for a while."""
    found = result("altered_hums")
    rows = [
        [kind, *(f"{block[method][key]:.3f}" for method in block for key in ("top1", "top10"))]
        for kind, block in found["hums"].items()
    ]
    first = found["hums"]["as hummed"]
    return f"""## Hums that pause, jump or go wrong

{first["full"]["n"]} hums of 8 to 12 s, made by rule of the typed notes above and altered once, searched anywhere in {found["songs"]:,} songs, all by their notes
(`qbhkit bench altered_hums`, weights `{found["weights"]}`).

{table(["hum", *(f"{key} {method}" for method in first for key in ("top-1", "top-10"))], rows)}"""


def failures() -> str:
    """Hums that do not find their song, to look at."""
    found = result("failures")
    return f"""## Failures, drawn

{found["failures"]} of {found["scores"]["n"]} queries of IOACAS do not find their song first by *full* (`qbhkit bench failures`, weights `{found["weights"]}`). For
{found["in_top10"]} of them it is among the first ten, by *vote* for {found["by_vote_in_top10"]}. For {found["nearer"]} it lies nearer to the hum than the first answer does, by the mean distance of
the alignment, but not by all that counts. Thirty of them, each over the right song and over the first answer:

![hums that do not find their song](../../figures/failures.png)"""


def speed() -> str:
    """Times, as ratios against a named rival."""
    names = ("bench_query", "bench_augment", "bench_training", "bench_cluster", "growth")
    query, augment, training, cluster, growth = map(result, names)
    built, ms, ratios = query["catalogue"], query["query_ms"], query["ratios"]
    loop = training["ratios"]["loop"]
    lines = [
        [
            "one query of 8 s, wav to answer",
            f"{ms['total']:.0f} ms (tracker {ms['tracker']:.0f}, search {ms['search']:.0f})",
            f"DTW alone {ms['dtw']:.0f} ms: {ratios['dtw_over_search']} times the search",
        ],
        [
            "the tracker of hums",
            f"{ms['tracker']:.0f} ms",
            f"pYIN {ms['pyin']:,.0f} ms: {ratios['pyin_over_swift_f0']} times",
        ],
        [
            "many queries at once",
            f"{ms['search, all at once']:.0f} ms of search each",
            f"one by one: {ratios['one_by_one_over_all_at_once']} times",
        ],
        [
            f"a catalogue of {built['songs']:,} songs",
            f"{built['songs_per_s']:.0f} songs/s, {built['windows_per_s']:,} windows/s",
            f"real time: {built['times_real_time']:,} times faster",
        ],
        [
            "a catalogue of recordings by two Dask workers",
            f"{cluster['seconds']['two_workers']:.0f} s",
            f"one process with two threads: {cluster['ratios']['one_process_over_two_workers']} times",
        ],
        [
            "training pairs",
            f"{augment['pairs_per_s']['vectorised']:,} a second",
            f"the same rules one item at a time: {augment['ratio']} times slower",
        ],
        [
            "the loop of stage 1",
            f"{training['pairs_per_s']['loop']['kit']:,} pairs a second",
            f"a straightforward loop: {loop['kit_over_per_item']} times slower",
        ],
        [
            "pairs from a million songs on disk",
            f"{training['most_over_fewest_songs']} times as fast",
            "as from ten thousand",
        ],
    ]
    sizes = [
        [
            f"{size['songs']:,}",
            f"{size['windows']:,}",
            name,
            f"{part['lookups_ms']['p50']:.0f}",
            f"{part['query_ms']['p50']:.0f}",
            f"{part['memory_mb']['peak']:,.0f}",
            f"{part['recall_at_10']:.3f}",
        ]
        for size in growth["sizes"].values()
        for name, part in size["indexes"].items()
    ]
    header = [
        "songs",
        "windows",
        "index",
        "look-ups of a hum, ms",
        "wav to answer, ms",
        "MB at most",
        "recall@10 of exact",
    ]
    return f"""## Speed and size

Two shared cores, no accelerator; medians (`qbhkit bench query`, `augment`, `training`, `cluster`).

{table(["what", "how fast", "rival in the same run"], lines)}

As a catalogue grows (`qbhkit bench growth`):

![growth](../../figures/growth.svg)

{table(header, sizes)}"""


def again() -> str:
    """How exactly a run repeats."""
    found = result("reproduce")
    rows = []
    for name, what in (
        ("full", "everything, same kind of processor (AMX)"),
        ("with_best", "stages 1 and 2, the machine that trained `best`"),
        ("full_without_bfloat16", "stage 1 and evaluation, another kind (AVX2)"),
    ):
        files = found[name]["files"].values()
        numbers, same = (sum(block[key] for block in files) for key in ("numbers", "identical"))
        shipped = ", ".join(
            f"`{key}`" for key, value in found[name].get("as_shipped", {}).items() if value
        )
        rows.append(
            [
                what,
                f"{numbers:,}",
                f"{same:,}",
                sum(len(block["outside"]) for block in files),
                shipped or "-",
            ]
        )
    two, _, one, *_ = found["threads"].values()
    full = found["full"]
    return f"""## Do it again

`make reproduce` trains stages 1 and 2 from nothing, measures them on all hums and folds, draws the figures and compares every number with these files.
The runs below repeated `stage1`, the former `best` (version 1.0) and the melody networks; `stage1-all` and today's `best` have been trained once.
The run took {full["hours"]:.1f} hours ({full["cpu_hours"]:.1f} CPU-hours) on two cores with AMX; processors without AMX take two to three times as long.

{table(["what was repeated", "numbers", "equal to the last digit", "out of bounds", "weights equal to the bit"], rows)}

How far a number may differ is set in `qbhkit/evaluation/benchmarks/bench_reproduce.py`. On one machine a run repeats to the byte. With one thread instead of two, 120 steps of
stage 1 end {abs(one["losses"][-1] - two["losses"][-1]):.3f} away in loss and {100 * abs(one["top1"] - two["top1"]):.1f} points of top-1 from the start ({100 * one["ranks_as_first"]:.1f}% of the ranks are the same).
Since these runs the pairs of stage 2 are aligned by the kit's own DTW, so training `best` again gives another file (DECISIONS.md)."""


def attacked(result: dict[str, Any]) -> str:
    """Return the table of attacks, and what they found (written into the file by hand)."""
    readers, works = result["files"]["readers"].values(), result["faults"]["works"]
    held, mutants = result["service"], result["mutants"]
    inputs, guided, refused = (
        sum(reader[key] for reader in readers) for key in ("inputs", "guided", "refused")
    )
    slowest_s, peak_mb = (max(of[key] for of in readers) for key in ("slowest_s", "peak_mb"))
    kills = sum(work["kills"] for work in works.values())
    filled = ", ".join(name for name, work in works.items() if "full_disk" in work)
    first, last = (round(held["memory_mb"][f"{when}_minute"]) for when in ("first", "last"))
    rows = [
        ("damaged files",
         f"{inputs:,} for {len(readers)} readers, {guided:,} of them guided by the lines they "
         "reach",
         f"{refused:,} refused in one sentence, the others read; at most {slowest_s:.1f} s and "
         f"{peak_mb:,} MB"),
        ("SIGKILL at random moments", f"{kills} kills of {', '.join(works)}",
         "each went on, and ended as if undisturbed"),
        ("a full disk", f"under {filled}", "one sentence; with room again, as if undisturbed"),
        (f"{held['clients']} clients of the HTTP service for {held['seconds']:.0f} s, and others "
         "that drip, leave or send too much",
         f"{held['answers']:,} answers, {held['refused']:,} sent away",
         f"{held['wrong']} wrong; sent away in {held['refusal_ms']['p95']:.0f} ms (p95); memory "
         f"{first} MB in the first minute, {last} MB in the last"),
        (f"one operator or number changed in the code, {mutants['mutants']} times",
         f"in {len(mutants['modules'])} modules",
         f"a test noticed {mutants['killed']}; the others are explained in "
         "`qbhkit/evaluation/benchmarks/survivors.yaml`"),
    ]  # fmt: skip
    found = ["", "Found and mended:", "", *(f"- {it}" for it in result["found"])]
    return "\n".join([table(["attack", "how much", "what happened"], rows), *found])


def attacks() -> str:
    """What was attacked, and what was found."""
    return f"""## Robustness

{attacked(result("robustness"))}

Inputs are files of the kit's readers, damaged by chance or guided by coverage (atheris). A reader may take 5 s and 1 GB.
`qbhkit bench fuzz`, `faults`, `service`, `mutants`. Every attack that found something is a test. Nothing that is read can run: no pickle but one
restricted unpickler, no YAML but plain values (`tests/test_trust.py`)."""


def page() -> str:
    """Return the whole page."""
    head = """# Results

Every table below is made from the JSON files in this folder by `make results`; a test compares. The commands that measured them
stand beside each table. Sets of weights are described in their model cards (`qbhkit/assets/weights/*.md`).
"""
    parts = (
        hums,
        elsewhere,
        ablation,
        trackers,
        real_songs,
        degraded,
        altered,
        failures,
        speed,
        again,
        attacks,
    )
    return "\n".join([head, *(f"{part()}\n" for part in parts)])


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page(), "utf-8")
