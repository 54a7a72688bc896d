"""Every number of the README, the model cards and the notebooks' prose comes from data/results.

What they must say is claimed below, word for word, from the recorded results; a number that no
claim covers stands in a list of facts with its source, or the test fails.
"""

import json
import re
import tomllib
from importlib import import_module
from pathlib import Path

import jupytext
import pytest

from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.training import TrainConfig
from qbhkit.evaluation.ablation import table
from qbhkit.evaluation.benchmarks import robustness
from qbhkit.metrics import grouped, intervals, metrics
from qbhkit.pitch.trackers import identity_of
from qbhkit.storage import asset
from qbhkit.weights import load_weights

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
# 1.5, 1.03e+03, 1,500, 15%
NUMBER = r"(?<![\w.,])(?:\d[\d,]*\.\d+(?:e[+-]\d+)?|\d{1,3}(?:,\d{3})+)(?: ?%)?|(?<![\w.,])\d+ ?%"


def result(name):
    return json.loads((ROOT / "data" / "results" / f"{name}.json").read_text("utf-8"))


WORDS = " ".join(re.sub(r"```.*?```", "", README, flags=re.DOTALL).split())
MATCH_FROM = ("start", "anywhere")
GROUPS = ("training_singers", "other_singers")
FIELDS = metrics([])._fields
MEASURES = ("top1", "top5", "top10", "mrr")
# Numbers with a decimal point, a thousands comma or a per cent sign that no result can hold: where
# they come from. Everything else that looks like one must be claimed below.
FACTS = {
    "95%": "the level of every interval",
    "90%": "the share of right answers that the calibration keeps",
    "2,000": "distractors that MIREX adds to MIR-QBSH",
    "1,000": "tunes of the demo (Makefile)",
    "2,094": "Hz, the upper end of swift-f0 (qbhkit/pitch/trackers/swift_f0.py)",
    "0.656": "top-10 of the published system (Query-by-Humming with Melody Embedding DNN)",
    "87,000": "songs in that system's test",
}


CLAIMED = []


def claims(function):
    """Register a function that yields what the README must say, word for word."""
    CLAIMED.append(function)
    return function


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def cells_of(block):
    return row(
        *(
            f"{block[key]:.3f} ({block['intervals'][key][0]:.2f}-{block['intervals'][key][1]:.2f})"
            for key in MEASURES
        )
    )


def by_vote_or(method, found, match_from):
    """The block of a crossed-fold result: that of voting stands at its top."""
    return found[match_from] if method == "vote" else found["methods"][method][match_from]


@claims
def the_python_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    yield f"Python {', '.join(versions[:-1])} or {versions[-1]}"


@claims
def the_tunes_of_the_demo():
    tunes = json.loads((ROOT / "data" / "splits" / "folk.json").read_text("utf-8"))["songs"]
    yield f"takes all {tunes // 100 * 100:,} tunes"


@claims
def what_to_expect():
    best, far = result("crossfold_best")["methods"]["full"], result("distractors")["all"]
    songs = result("crossfold_best")["songs"]
    start, anywhere, ioacas = best["start"], best["anywhere"], best["ioacas"]
    blocks = {
        f"{start['n']} of MIR-QBSH against {songs:,} songs, begun where the song begins": start,
        "the same, compared with every place of every song": anywhere,
        f"{ioacas['n']} of IOACAS, begun anywhere, other singers and songs": ioacas,
        f"MIR-QBSH against {far['songs'] // 100 * 100:,} songs, anywhere, by weights trained "
        "without hums": far["anywhere"],
    }
    for what, block in blocks.items():
        yield row(what, f"{block['top1']:.3f}", f"{block['top10']:.3f}")
    refusal = result("crossfold_best")["refusal"]
    assert min(refusal[match_from]["refused"] for match_from in MATCH_FROM) >= 0.9
    yield f"and {songs:,} songs are few"
    yield "it refuses nine in ten of the hums"


@claims
def the_intervals_over_singers():
    singers, full = result("hums_start")["singers"], result("crossfold_best")["methods"]["full"]
    told = []
    for match_from in MATCH_FROM:
        assert full[match_from]["per_singer"] == grouped(full[match_from]["ranks"], singers)
        low, high = intervals(full[match_from]["ranks"], groups=singers)["top1"]
        told.append(f"{low:.2f}-{high:.2f}")
    yield f"*full, fine-tuned* {told[0]} from the start, {told[1]} anywhere"


@claims
def the_table_of_methods():
    for match_from in MATCH_FROM:
        methods = result(f"hums_{match_from}")["methods"]
        found = re.findall(rf"^\| {match_from} \| ([^ ,]+) \|", README, re.MULTILINE)
        assert found == list(methods)
        for name, block in methods.items():
            yield f"| {match_from} | {name} {cells_of(block)}"


@claims
def the_table_of_fine_tuned_weights():
    best, published = result("crossfold_best"), result("crossfold_published")
    for match_from in MATCH_FROM:
        for method in ("full", "vote", "vector"):
            block = by_vote_or(method, best, match_from)
            assert metrics(block["ranks"])._asdict() == {key: block[key] for key in FIELDS}
            assert block["n"] == 423
            yield f"| {match_from} | {method}, fine-tuned {cells_of(block)}"
        block = published["methods"]["vector"][match_from]
        yield f"| {match_from} | vector, published configuration {cells_of(block)}"


@claims
def what_is_refused():
    found = result("crossfold_best")["refusal"]
    start, anywhere = found["start"], found["anywhere"]
    yield f"refuses {start['refused']:.3f} of the hums"
    yield f"was taken away (anywhere: {anywhere['refused']:.3f})"
    yield f"gives {start['precision']:.3f} are right (anywhere: {anywhere['precision']:.3f})"
    assert min(start["kept"], anywhere["kept"]) > 0.9


@claims
def what_other_singers_reach():
    start, anywhere = (
        [
            f"{result(f'hums_{a}')['methods']['full']['by_split'][group]['top1']:.3f}"
            for group in GROUPS
        ]
        for a in MATCH_FROM
    )
    yield f"top-1 {start[0]} on those and {start[1]} on the other 13"
    yield f"(anywhere: {anywhere[0]} and {anywhere[1]})"
    yield f"A closed set of {result('hums_start')['songs']:,} songs"


@claims
def what_every_tune_as_a_distractor_does():
    found = result("distractors")
    every, held_out = found["all"], found["held out"]
    assert len(every["near_duplicates"]) == 19
    lenient, strict = every["start"]["same_tune"]["top1"], every["start"]["top1"]
    yield f"POP909, {every['songs']:,} songs) stage 1 finds top-10 {every['start']['top10']:.3f}"
    yield f"from the start and {every['anywhere']['top10']:.3f} anywhere"
    top10 = f"{held_out['start']['top10']:.3f} and {held_out['anywhere']['top10']:.3f}"
    yield f"({held_out['songs']:,} songs) {top10}"
    yield f"the start is {lenient:.3f} instead of {strict:.3f}"
    yield f"top-10 anywhere {every['anywhere']['same_tune']['top10']:.3f}"


@claims
def what_was_found_of_another_corpus():
    best, stage1 = result("crossfold_best"), result("crossfold_stage1")["ioacas"]
    full, vote = best["methods"]["full"]["ioacas"], best["ioacas"]
    assert full["n"] == vote["n"] == stage1["n"] == 340
    found, by_vote, first = (
        [f"{block[key]:.3f}" for key in ("top1", "top10", "mrr")] for block in (full, vote, stage1)
    )
    yield f"298 songs and the same {best['songs']:,} a model"
    yield f"finds top-1 {found[0]} and top-10 {found[1]}, MRR {found[2]} (by vote alone:"
    yield f"alone: {', '.join(by_vote)}; the vote of stage 1: {', '.join(first)};"


@claims
def what_became_of_the_recorded_song():
    found = result("song_end_to_end")
    assert metrics(found["ranks"])._asdict() == {key: found[key] for key in FIELDS}
    yield f"among the {found['songs'] - 1:,} songs, {len(found['ranks'])} distorted hums"
    yield f"find it first in {found['top1']:.2f}"
    yield f"among ten in {found['top10']:.2f}"


@claims
def what_is_found_without_choosing_a_pitch():
    blocks = [result("end_to_end")[match_from]["methods"] for match_from in MATCH_FROM]
    states, contours = (
        {key: " and ".join(f"{block[name][key]:.3f}" for block in blocks) for key in MEASURES}
        for name in ("end-to-end", "contour, swift-f0")
    )
    first = states["top1"].replace(" and", " from the start and")
    yield f"finds top-1 {first} anywhere"
    yield f"where contours of the same weights find {contours['top1']}"
    yield f"(top-10: {states['top10']} against {contours['top10']};"


@claims
def the_table_of_the_ablation():
    lines = table(result("ablation"))
    part = re.search(r"<!-- ablation -->\n(.*?)\n<!-- /ablation -->", README, re.DOTALL)[1]
    assert len(part.splitlines()) == 2 + len(lines)
    keys = [
        f"{match_from} {measure}"
        for match_from in MATCH_FROM
        for measure in ("top1", "top10", "mrr")
    ]
    for line in lines:
        several = line["seeds"] > 1
        numbers = [
            f"{line[key]:.3f}" + (f" ± {line[f'{key} spread']:.3f}" if several else "")
            for key in [*keys, "ioacas mrr"]
        ]
        against = [100 * value for value in line["anywhere top1 against first"]]
        last = "" if line == lines[0] else "{:+.1f} ({:+.1f} to {:+.1f})".format(*against)
        yield " ".join(row(line["row"], str(line["seeds"]), *numbers, last).split())
    widest = max(line["anywhere top1 spread"] for line in lines)
    yield f"Seeds lie up to {100 * widest:.1f} points of top-1 anywhere"


@claims
def what_long_hums_and_second_takes_buy():
    long, takes = result("takes")["long"], result("takes")["takes"]
    yield f"of {long['hums']} hums made by rule"
    yield f"among {long['songs']:,} songs"
    yield (
        f"{long['8 s']['top1']:.3f} are found first when they last 8 s, "
        f"{long['15 s']['top1']:.3f} at 15 s, {long['30 s']['top1']:.3f} at 30 s and "
        f"{long['60 s']['top1']:.3f} at 60 s"
    )
    together, *alone = (
        takes["anywhere"][name]["top1"] for name in ("together", "first alone", "second alone")
    )
    yield f"({takes['pairs']} pairs of MIR-QBSH, stage 1, anywhere)"
    yield f"in {together:.3f} of the cases when they are searched together"
    yield f"alone in {alone[0]:.3f} and {alone[1]:.3f}"


@claims
def the_table_of_trackers():
    section = README.split("## Pitch trackers")[1].split("\n## ")[0]
    blocks = result("melody_bench")["trackers"]
    assert len(re.findall(r"^\| .* \|$", section, re.MULTILINE)) == 1 + len(blocks)
    most = max(block["sets"]["songs 0 dB"]["clips"] for block in blocks.values())
    for name, block in blocks.items():
        main = block["sets"]["songs 0 dB"]
        low, high = main["overall_accuracy_interval"]
        wanted = [("hums", "raw_pitch_accuracy"), ("hums", "overall_accuracy")]
        wanted += [(f"songs {snr} dB", "overall_accuracy") for snr in ("+5", "0", "-5")]
        wanted += [("agreement", "raw_pitch_accuracy")]
        cells = [
            f"{block['sets'][kind][measure]:.3f}" if kind in block["sets"] else "-"
            for kind, measure in wanted
        ]
        cells[3] += f" ({low:.2f}-{high:.2f})"
        few = f" ({main['clips']} clips)" if main["clips"] < most else ""
        speed = f"{1 / block['real_time_factor']:.3g}"
        yield row(name + few, *cells, speed, f"{block['memory_mb']:.0f}")
    melodia, lite = (
        blocks[name]["sets"]["songs 0 dB"]["raw_pitch_accuracy"]
        for name in ("melodia", "crnn-lite")
    )
    yield f"its raw pitch accuracy is {melodia:.3f}, that of `crnn-lite` {lite:.3f}"


@claims
def how_fast_the_published_network_is():
    found = result("bench_crnn")
    yield f"it is {found['times_real_time']['network']:.1f} times faster than real time"
    yield f"convolutions alone {found['times_real_time']['convolutions_alone']:.1f})"
    yield f"takes {found['memory']['peak_mb']} MB for an hour"


@claims
def what_the_benchmarks_measured():
    query, augment = result("bench_query"), result("bench_augment")
    training, cluster = result("bench_training"), result("bench_cluster")
    built, ms, ratios = query["catalogue"], query["query_ms"], query["ratios"]
    yield f"catalogue of {built['songs']:,} songs: {built['songs_per_s']:.0f} songs/s"
    yield f"{built['windows_per_s']:,} windows/s, {built['times_real_time']:,} times real time"
    yield f"{ms['total']:.0f} ms (tracker {ms['tracker']:.0f}, search {ms['search']:.0f}"
    yield f"of many hums at once {ms['search, all at once']:.0f} each"
    yield f"pYIN takes {ms['pyin']:,.0f} ms ({ratios['pyin_over_swift_f0']:.0f} times the tracker)"
    yield f"DTW {ms['dtw']:.0f} ms ({ratios['dtw_over_search']:.0f} times the search)"
    assert augment["ratio"] >= 10
    yield f"training pairs: {augment['pairs_per_s']['vectorised']:,} a second"
    yield f"a second, {int(augment['ratio'])} times as many"
    yield f"{training['pairs_per_s']['loop']['kit']:,} a second"
    yield f"{training['ratios']['loop']['kit_over_per_item']} times a straightforward"
    yield f"{training['most_over_fewest_songs']} times as fast as from ten thousand"
    assert cluster["catalogues_equal"]
    yield f"{cluster['ratios']['one_process_over_two_workers']} times as fast"


@claims
def how_a_catalogue_grows():
    largest = max(result("growth")["sizes"].values(), key=lambda size: size["windows"])
    part = largest["indexes"]["faiss ivf-pq"]
    assert largest["windows"] >= 1_000_000
    yield f"({largest['songs']:,} tunes)"
    yield f"all look-ups of a hum {part['lookups_ms']['p50']:.0f} ms"
    yield f"from wav to answer {part['query_ms']['p50']:.0f} ms"
    yield f"{part['memory_mb']['peak']:,.0f} MB of memory"
    yield f"recall@10 {part['recall_at_10']:.3f} of exact"


@claims
def what_comes_out_again():
    full, with_best = result("reproduce")["full"], result("reproduce")["with_best"]
    assert full["as_shipped"] == {"stage1": True}
    assert with_best["as_shipped"] == {"stage1": True, "best": True}
    files, same, count = full["files"], 0, 0
    for block in files.values():
        assert not block["outside"]
        count, same = count + block["numbers"], same + block["identical"]
        assert max(block["farthest"].values()) < 1e-6
    for match_from in MATCH_FROM:
        assert files[f"hums_{match_from}"]["identical"] == files[f"hums_{match_from}"]["numbers"]
    curves = with_best["files"].values()
    assert all(block["identical"] == block["numbers"] for block in curves)
    yield f"it took {full['hours']:.1f} hours ({full['cpu_hours']:.1f} CPU-hours)"
    yield f"of {count:,} numbers {same:,} came out to the last digit"
    yield f"all {sum(block['numbers'] for block in curves)} numbers of their curves"


@claims
def what_threads_change():
    full = result("reproduce")["full_without_bfloat16"]
    files, hours = full["files"], {name: one["cpu_hours"] for name, one in full["steps"].items()}
    assert not any(block["outside"] for block in files.values())
    yield f"{sum(block['numbers'] for block in files.values()):,} numbers, none out of its bounds"
    off = {key: max(files[f"hums_{match_from}"]["farthest"][key] for match_from in MATCH_FROM)
           for key in ("top1", "top10")}  # fmt: skip
    yield f"top-1 lies more than {100 * off['top1']:.1f} points from the recorded one"
    yield f"no top-10 more than {100 * off['top10']:.1f}"
    first = hours.pop("train stage1")
    yield f"{full['epochs_timed']} of the 50 epochs of stage 1 took {first:.1f} CPU-hours"
    yield f"up to cross-validation, {sum(hours.values()):.1f}"
    two, again, one = result("reproduce")["threads"].values()
    assert again["bytes_as_first"]
    assert again["ranks_as_first"] == 1
    loss = abs(one["losses"][-1] - two["losses"][-1])
    yield f"end {loss:.3f} away in loss and {100 * abs(one['top1'] - two['top1']):.1f} points of"
    yield f"({100 * one['ranks_as_first']:.1f}% of the ranks"


@claims
def what_was_attacked():
    found = result("robustness")
    if "service" in found:
        memory = found["service"]["memory_mb"]
        assert found["service"]["wrong"] == 0
        assert memory["last_minute"] <= 1.05 * memory["first_minute"]
    assert found["mutants"]["killed"] >= 0.85 * found["mutants"]["mutants"]
    for module in found["mutants"]["modules"].values():
        assert all(survivor["reason"] for survivor in module["survivors"])
    yield " ".join(robustness.table(found).split())


@pytest.mark.parametrize("claim", CLAIMED, ids=lambda claim: claim.__name__)
def test_the_readme_says_what_was_measured(claim):
    phrases = list(claim())
    assert phrases
    assert [phrase for phrase in phrases if phrase not in WORDS] == []


def unclaimed(text, phrases):
    """The numbers of a text (1.5, 1,500 or 15%) that lie in none of the phrases."""
    for phrase in sorted(phrases, key=len, reverse=True):
        text = text.replace(phrase, re.sub(r"\d", "_", phrase))
    return set(re.findall(NUMBER, text))


def test_every_number_of_the_readme_is_checked():
    found = unclaimed(WORDS, [phrase for claim in CLAIMED for phrase in claim()])
    assert found == set(FACTS)  # and none of the facts is said no longer


def test_an_unchecked_number_is_found():
    assert unclaimed("top-1 0.931 of 1,024 hums, 95%", ["top-1 0.931"]) == {"1,024", "95%"}


CARD_FACTS = {
    "stage1": {"7,311": "melodies: tunes without their variants (qbhkit.corpora.training_songs)"},
    "best": {"2,000": "distractors of MIREX"},
    "published": {
        "100,000": "songs that the published system learnt from",
        "1,000": "hums that it learnt from; steps an epoch in the configuration",
    },
    "crnn-lite": {
        "1.5 %": "of frames that training labels drew into rests, before that was mended",
        "2.5": "MB: four bytes for each of its numbers",
    },
    "end-to-end": {"3,000": "rendered_hums, as many as 'qbhkit data perform' makes unless told"},
}


def measured(block):
    return f"top-1 {block['top1']:.3f}, top-10 {block['top10']:.3f}, MRR {block['mrr']:.3f}"


def card_of(name):
    return " ".join(asset(f"weights/{name}.md").read_text("utf-8").split())


def claims_of_card(name):
    """Yield what a model card must say, word for word."""
    config = read_yaml(config_path(name))
    arrays = load_weights(name).arrays  # what batch norms have counted is no parameter
    counted = ("running_mean", "running_var", "num_batches_tracked")
    size = sum(array.size for key, array in arrays.items() if not key.endswith(counted))
    songs = sum(
        json.loads((ROOT / "data" / "splits" / f"{corpus}.json").read_text("utf-8"))["training"]
        for corpus in ("folk", "pop909")
    )
    against = f"against {result('hums_start')['songs']:,} songs"
    if name in ("stage1", "best", "published"):
        yield f"{size:,} parameters"
        yield against
    if name == "stage1":
        yield f"{songs:,} songs ("
    if name in ("stage1", "best"):
        for match_from in MATCH_FROM:
            if name == "stage1":
                yield measured(result(f"hums_{match_from}")["methods"]["vote"])
            else:
                yield measured(by_vote_or("vote", result("crossfold_best"), match_from))
                yield measured(by_vote_or("full", result("crossfold_best"), match_from))
    if name == "best":
        hums = build_config(TrainConfig, config, name).hums
        yield f"farther than {hums.farthest_st} semitones"
    if name == "published":
        found = result("crossfold_published")
        assert load_weights(name).config["calibration"] == found["calibration"]
        yield f"and the data: {songs:,} songs"
        yield f"margin {config['margin']}"
        for match_from in MATCH_FROM:
            yield measured(found["methods"]["vector"][match_from])
            yield measured(found["methods"]["full"][match_from])
    if name == "end-to-end":
        found = result("end_to_end")
        assert found["weights"] == StateEmbedder("end-to-end").weights
        assert found["teacher"] == StateEmbedder("end-to-end").identity
        blocks = [found[match_from]["methods"] for match_from in MATCH_FROM]
        start, anywhere = (block["contour, swift-f0"]["top1"] for block in blocks)
        yield against
        yield f"(top-1 {start:.3f} from the start, {anywhere:.3f} anywhere)"
        for block in blocks:
            yield measured(block["end-to-end"])
            yield measured(block["end-to-end"]["other_singers"])
    if name == "crnn-lite":
        last = result("train_crnn-lite")["curve"][-1]
        sets = result("melody_bench")["trackers"]["crnn-lite"]["sets"]
        yield f"{size:,} parameters"
        yield (
            f"raw pitch accuracy {last['raw_pitch_accuracy']:.3f}, overall accuracy "
            f"{last['overall_accuracy']:.3f}."
        )
        for kind in ("songs +5 dB", "songs 0 dB", "songs -5 dB"):
            yield f"{kind[6:]} {sets[kind]['overall_accuracy']:.3f}"
        yield f"raw pitch {sets['agreement']['raw_pitch_accuracy']:.3f}"
        yield f"false alarm {sets['agreement']['voicing_false_alarm']:.3f}"
        yield f"voicing ({load_weights('crnn-lite').config['threshold']})"


@pytest.mark.parametrize("name", CARD_FACTS)
def test_the_model_card_says_what_was_measured_and_no_other_number(name):
    card, phrases = card_of(name), list(claims_of_card(name))
    assert [phrase for phrase in phrases if phrase not in card] == []
    assert unclaimed(re.sub(r"`[^`]*`", "", card), phrases) == set(CARD_FACTS[name])


def test_every_set_of_weights_has_a_checked_card():
    assert {path.stem for path in asset("weights").glob("*.md")} == set(CARD_FACTS)


# Numbers in the prose of notebooks: settings and other people's results, with their source. What
# was measured is printed by cells, from data/results or from the run itself.
NOTEBOOK_FACTS = {
    "95%": "the level of every interval",
    "87,000": "songs in the published system's test",
    "13,000": "hums that this network learnt from",
    "4,431": "recordings of the whole of MIR-QBSH (qbhkit data list)",
    "30,000": "songs in its smaller test",
    "0.866": "top-1 of the best published network for MIR-QBSH",
    "0.958": "its top-10",
    "0.5": "the published margin, and shares",
    "0.44": "a trial, DECISIONS.md, Nearest negatives after a warm-up",
    "0.61": "the same",
    "0.07": "the temperature of InfoNCE at the start (TrainConfig)",
    "0.01": "a temperature to try",
    "3.0": "of CC BY 3.0",
    "6,000": "Hz, the upper end of the whistle tracker",
    "0.3": "of the score for a semitone of distance (DECISIONS.md, Vote, align, add)",
    "0.75": "of the tempo: how slowly notebook 10 renders hums",
    "1.33": "how fast",
    "0.7": "how notebook 10 stretches hums",
    "1.4": "how notebook 10 stretches hums",
    "0.8": "semitones by which its singers miss a note",
    "2,000": "distractors of MIREX",
    "1,000": "tunes of the demo (Makefile)",
    "1.2": "semitones: hums.farthest_st of the shipped configuration",
}


def claims_of_notebooks():
    """Yield what the notebooks must say somewhere, word for word."""
    songs = result("hums_start")["songs"]
    yield f"the {songs:,} songs of the MIREX database"
    yield f"423 real hums, searched among {songs:,} songs"
    yield f"423 real hums, none of which it was trained on, among {songs:,} songs"
    yield f"queries against 298 songs and the {songs:,} above"
    widest = max(line["anywhere top1 spread"] for line in table(result("ablation")))
    yield f"differ by up to {100 * widest:.1f} points from their mean"


def prose_of(source):
    """The markdown of a notebook without code and formulas."""
    cells = jupytext.read(source).cells
    text = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```|`[^`]*`|\$\$?.*?\$\$?", "", text, flags=re.DOTALL)
    return " ".join(text.split())


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_numbers_in_the_prose_of_notebooks_have_a_source(source):
    assert unclaimed(prose_of(source), list(claims_of_notebooks())) <= set(NOTEBOOK_FACTS)


def test_the_notebooks_say_what_was_measured():
    text = " ".join(map(prose_of, NOTEBOOKS))
    assert [phrase for phrase in claims_of_notebooks() if phrase not in text] == []
    facts = set().union(
        *(unclaimed(prose_of(source), claims_of_notebooks()) for source in NOTEBOOKS)
    )
    assert facts == set(NOTEBOOK_FACTS)  # none of them is said no longer


@pytest.mark.parametrize("match_from", ["start", "anywhere"])
def test_recorded_metrics_follow_from_the_recorded_ranks(match_from):
    recorded = result(f"hums_{match_from}")
    assert recorded["n"] == len(recorded["song_ids"]) == 423
    for block in recorded["methods"].values():
        assert metrics(block["ranks"])._asdict() == {key: block[key] for key in metrics([])._fields}
        found = intervals(block["ranks"])
        assert found.keys() == block["intervals"].keys()
        for name, limits in block["intervals"].items():
            assert found[name] == pytest.approx(limits, abs=1e-12)


def test_the_recorded_hums_were_searched_by_weights_that_never_heard_them():
    from qbhkit.embedding.embedder import ContourEmbedder

    for match_from in ("start", "anywhere"):
        assert result(f"hums_{match_from}")["model"] == ContourEmbedder("stage1").identity


def test_the_shipped_weights_hold_the_measured_calibration():
    assert load_weights("best").config["calibration"] == result("crossfold_best")["calibration"]


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        ("stage1", "qbhkit.embedding.training", "TrainConfig"),
        ("best", "qbhkit.embedding.training", "TrainConfig"),
        ("published-stage1", "qbhkit.embedding.training", "TrainConfig"),
        ("published", "qbhkit.embedding.training", "TrainConfig"),
        ("crnn-lite", "qbhkit.pitch.training", "MelodyTrainConfig"),
    ],
)
def test_the_recorded_training_is_that_of_the_shipped_configuration(name, module, kind):
    config = getattr(import_module(module), kind)
    recorded = build_config(config, result(f"train_{name}")["config"], name)
    path = config_path(name)
    assert recorded == build_config(config, read_yaml(path), str(path))
    assert len(result(f"train_{name}")["curve"]) == recorded.epochs


def test_the_melody_results_are_of_the_shipped_weights():
    assert result("melody_bench")["trackers"]["crnn-lite"]["identity"] == identity_of("crnn-lite")
    assert result("song_end_to_end")["tracker"] == identity_of("crnn-lite")
