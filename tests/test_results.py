"""Every number of the README's tables and of the model card stands in data/results."""

import json
import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

from qbhkit.config import build, config_path, read_yaml
from qbhkit.embedding.end_to_end import AudioEmbedder
from qbhkit.melody.trackers import identity_of
from qbhkit.retrieval.ablation import table
from qbhkit.retrieval.evaluate import intervals, metrics
from qbhkit.storage import asset
from qbhkit.weights import load_weights

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import robustness

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")


def result(name):
    return json.loads((ROOT / "data" / "results" / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("anchor", ["start", "anywhere"])
def test_the_readme_table_is_the_recorded_result(anchor):
    methods = result(f"hums_{anchor}")["methods"]
    rows = re.findall(rf"^\| {anchor} \| (\S+) \| (.*) \|$", README, re.MULTILINE)
    assert [name for name, _ in rows] == list(methods)
    for name, cells in rows:
        block = methods[name]
        wanted = [
            f"{block[key]:.3f} ({block['intervals'][key][0]:.2f}-{block['intervals'][key][1]:.2f})"
            for key in ("top1", "top5", "top10", "mrr")
        ]
        assert cells.split(" | ") == wanted


@pytest.mark.parametrize("anchor", ["start", "anywhere"])
def test_recorded_metrics_follow_from_the_recorded_ranks(anchor):
    recorded = result(f"hums_{anchor}")
    assert recorded["n"] == len(recorded["song_ids"]) == 423
    for block in recorded["methods"].values():
        assert metrics(block["ranks"])._asdict() == {key: block[key] for key in metrics([])._fields}
        assert intervals(block["ranks"]) == block["intervals"]


def test_the_readme_says_what_the_benchmarks_measured():
    query, augment = result("bench_query"), result("bench_augment")
    assert augment["ratio"] >= 10
    assert f"{augment['pairs_per_s']['vectorised']:,} a second" in README
    assert f"{query['query_ms']['total']:.0f} ms (tracker" in README
    assert f"{query['catalogue']['windows_per_s']:,} windows/s" in README
    assert f"of many hums at once {query['query_ms']['search, all at once']:.0f} each" in README
    training, cluster = result("bench_training"), result("bench_cluster")
    assert f"{training['pairs_per_s']['loop']['kit']:,} a second" in README
    assert f"{training['ratios']['loop']['kit_over_per_item']} times a straightforward" in README
    assert f"{training['most_over_fewest_songs']} times as fast as from ten thousand" in README
    assert cluster["catalogues_equal"]
    assert f"{cluster['ratios']['one_process_over_two_workers']} times as fast" in README


def test_the_readme_says_how_a_catalogue_grows():
    row = max(result("growth")["sizes"].values(), key=lambda row: row["windows"])
    part = row["indexes"]["faiss ivf-pq"]
    words = " ".join(README.split())
    assert row["windows"] >= 1_000_000
    assert f"{row['songs']:,} tunes" in words
    assert f"all look-ups of a hum {part['lookups_ms']['p50']:.0f} ms" in words
    assert f"from wav to answer {part['query_ms']['p50']:.0f} ms" in words
    assert f"{part['memory_mb']['peak']:,.0f} MB of memory" in words
    assert f"recall@10 {part['recall_at_10']:.3f} of exact" in words


@pytest.mark.parametrize("name", ["stage1", "best"])
def test_the_model_cards_say_what_was_measured(name):
    card = " ".join(asset(f"weights/{name}.md").read_text("utf-8").split())
    for anchor in ("start", "anywhere"):
        blocks = [result(f"hums_{anchor}")["methods"]["vote"]]
        if name == "best":
            found = result("crossfold_best")
            blocks = [found[anchor], found["methods"]["full"][anchor]]
        for block in blocks:
            assert measured(block) in card


def test_the_card_of_the_published_configuration_says_what_was_measured():
    card = " ".join(asset("weights/published.md").read_text("utf-8").split())
    found, weights = result("crossfold_published"), load_weights("published")
    for anchor in ("start", "anywhere"):
        assert measured(found["methods"]["vector"][anchor]) in card
        assert measured(found["methods"]["full"][anchor]) in card
    assert weights.config["calibration"] == found["calibration"]
    assert f"{sum(array.size for array in weights.arrays.values()):,} parameters" in card


def test_the_card_of_the_end_to_end_network_says_what_was_measured():
    card = " ".join(asset("weights/end-to-end.md").read_text("utf-8").split())
    found = result("end_to_end")
    for anchor in ("start", "anywhere"):
        block = found[anchor]["methods"]["end-to-end"]
        assert measured(block) in card
        assert measured(block["other_singers"]) in card
        assert f"{found[anchor]['methods']['contour, swift-f0']['top1']:.3f}" in card
    assert found["weights"] == AudioEmbedder("end-to-end").weights
    assert found["teacher"] == AudioEmbedder("end-to-end").identity


def measured(block):
    return f"top-1 {block['top1']:.3f}, top-10 {block['top10']:.3f}, MRR {block['mrr']:.3f}"


def test_the_recorded_hums_were_searched_by_weights_that_never_heard_them():
    from qbhkit.embedding.encoders import ContourEmbedder

    for anchor in ("start", "anywhere"):
        assert result(f"hums_{anchor}")["model"] == ContourEmbedder("stage1").identity


@pytest.mark.parametrize("method", ["full", "vote", "vector"])
@pytest.mark.parametrize("anchor", ["start", "anywhere"])
def test_the_readme_says_what_fine_tuned_weights_find(anchor, method):
    found = result("crossfold_best")
    block = found[anchor] if method == "vote" else found["methods"][method][anchor]
    assert metrics(block["ranks"])._asdict() == {key: block[key] for key in metrics([])._fields}
    assert block["n"] == 423
    assert f"| {anchor} | {method}, fine-tuned | {cells_of(block)} |" in README


@pytest.mark.parametrize("anchor", ["start", "anywhere"])
def test_the_readme_says_what_the_published_configuration_finds(anchor):
    block = result("crossfold_published")["methods"]["vector"][anchor]
    assert f"| {anchor} | vector, published configuration | {cells_of(block)} |" in README


def cells_of(block):
    return " | ".join(
        f"{block[key]:.3f} ({block['intervals'][key][0]:.2f}-{block['intervals'][key][1]:.2f})"
        for key in ("top1", "top5", "top10", "mrr")
    )


def test_the_readme_says_what_is_refused():
    words, found = " ".join(README.split()), result("crossfold_best")["refusal"]
    start, anywhere = found["start"], found["anywhere"]
    assert f"refuses {start['refused']:.3f} of the hums" in words
    assert f"was taken away (anywhere: {anywhere['refused']:.3f})" in words
    assert (
        f"gives {start['precision']:.3f} are right (anywhere: {anywhere['precision']:.3f})" in words
    )
    assert min(start["kept"], anywhere["kept"]) > 0.9


def test_the_shipped_weights_hold_the_measured_calibration():
    assert load_weights("best").config["calibration"] == result("crossfold_best")["calibration"]


def test_the_readme_says_what_was_found_of_another_corpus():
    best, stage1 = result("crossfold_best"), result("crossfold_stage1")["ioacas"]
    full, vote = best["methods"]["full"]["ioacas"], best["ioacas"]
    assert full["n"] == vote["n"] == stage1["n"] == 340
    words = " ".join(README.split())
    found, by_vote, first = (
        [f"{block[key]:.3f}" for key in ("top1", "top10", "mrr")] for block in (full, vote, stage1)
    )
    assert f"finds top-1 {found[0]} and top-10 {found[1]}, MRR {found[2]} (by vote alone:" in words
    assert f"alone: {', '.join(by_vote)}; the vote of stage 1: {', '.join(first)};" in words


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        ("stage1", "qbhkit.embedding.training", "TrainConfig"),
        ("best", "qbhkit.embedding.training", "TrainConfig"),
        ("published-stage1", "qbhkit.embedding.training", "TrainConfig"),
        ("published", "qbhkit.embedding.training", "TrainConfig"),
        ("crnn-lite", "qbhkit.melody.training", "MelodyTrainConfig"),
    ],
)
def test_the_recorded_training_is_that_of_the_shipped_configuration(name, module, kind):
    config = getattr(import_module(module), kind)
    recorded = build(config, result(f"train_{name}")["config"], name)
    path = config_path(name)
    assert recorded == build(config, read_yaml(path), str(path))
    assert len(result(f"train_{name}")["curve"]) == recorded.epochs


def test_the_card_of_the_melody_network_says_what_was_measured():
    card = " ".join(asset("weights/crnn-lite.md").read_text("utf-8").split())
    last = result("train_crnn-lite")["curve"][-1]
    assert (
        f"raw pitch accuracy {last['raw_pitch_accuracy']:.3f}, overall accuracy "
        f"{last['overall_accuracy']:.3f}." in card
    )
    sets = result("melody_bench")["trackers"]["crnn-lite"]["sets"]
    for kind in ("songs +5 dB", "songs 0 dB", "songs -5 dB"):
        assert f"{kind[6:]} {sets[kind]['overall_accuracy']:.3f}" in card
    agreement = sets["agreement"]
    assert f"raw pitch {agreement['raw_pitch_accuracy']:.3f}" in card
    assert f"false alarm {agreement['voicing_false_alarm']:.3f}" in card
    assert f"threshold of voicing ({load_weights('crnn-lite').config['threshold']}" in card


def test_the_melody_results_are_of_the_shipped_weights():
    assert result("melody_bench")["trackers"]["crnn-lite"]["identity"] == identity_of("crnn-lite")
    assert result("song_end_to_end")["tracker"] == identity_of("crnn-lite")


def test_the_readme_says_what_became_of_the_recorded_song():
    found = result("song_end_to_end")
    assert metrics(found["ranks"])._asdict() == {key: found[key] for key in metrics([])._fields}
    assert f"find it first in {found['top1']:.2f}" in README
    assert f"among ten in {found['top10']:.2f}" in README


def test_the_readme_says_how_fast_the_published_network_is():
    found, text = result("bench_crnn"), " ".join(README.split())
    assert f"it is {found['times_real_time']['network']:.1f} times faster than real time" in text
    assert f"convolutions alone {found['times_real_time']['convolutions_alone']:.1f})" in text
    assert f"takes {found['memory']['peak_mb']} MB for an hour" in text


def test_the_readme_table_of_trackers_is_the_recorded_result():
    section = README.split("## Pitch trackers")[1].split("\n## ")[0]
    rows = [row.split(" | ") for row in re.findall(r"^\| (.*) \|$", section, re.MULTILINE)]
    rows = [cells for cells in rows if cells[0] not in ("tracker", "---")]
    blocks = result("melody_bench")["trackers"]
    most = max(block["sets"]["songs 0 dB"]["clips"] for block in blocks.values())
    assert sorted(cells[0].split()[0] for cells in rows) == sorted(blocks)
    for cells in rows:
        block = blocks[cells[0].split()[0]]
        main = block["sets"]["songs 0 dB"]
        low, high = main["overall_accuracy_interval"]
        assert ("clips)" in cells[0]) == (main["clips"] < most)
        wanted = [("hums", "raw_pitch_accuracy"), ("hums", "overall_accuracy")]
        wanted += [(f"songs {snr} dB", "overall_accuracy") for snr in ("+5", "0", "-5")]
        wanted += [("agreement", "raw_pitch_accuracy")]
        measured = [
            f"{block['sets'][kind][measure]:.3f}" if kind in block["sets"] else "-"
            for kind, measure in wanted
        ]
        measured[3] += f" ({low:.2f}-{high:.2f})"
        speed = f"{1 / block['real_time_factor']:.3g}"
        assert cells[1:] == [*measured, speed, f"{block['memory_mb']:.0f}"]


def test_the_readme_says_what_every_tune_as_a_distractor_does():
    found, text = result("distractors"), " ".join(README.split())
    every, held_out = found["all"], found["held out"]
    assert (
        f"POP909, {every['songs']:,} songs) stage 1 finds top-10 {every['start']['top10']:.3f}"
        in text
    )
    assert f"from the start and {every['anywhere']['top10']:.3f} anywhere" in text
    top10 = f"{held_out['start']['top10']:.3f} and {held_out['anywhere']['top10']:.3f}"
    assert f"({held_out['songs']:,} songs) {top10}" in text
    assert len(every["near_duplicates"]) == 19
    lenient, strict = every["start"]["same_tune"]["top1"], every["start"]["top1"]
    assert f"the start is {lenient:.3f} instead of {strict:.3f}" in text
    assert f"top-10 anywhere {every['anywhere']['same_tune']['top10']:.3f}" in text


def test_the_readme_holds_the_table_of_the_ablation():
    rows = re.search(r"<!-- ablation -->\n(.*?)\n<!-- /ablation -->", README, re.DOTALL)[1]
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows.splitlines()[2:]]
    lines = table(result("ablation"))
    assert [row[0] for row in cells] == [line["row"] for line in lines]
    keys = [f"{a} {m}" for a in ("start", "anywhere") for m in ("top1", "top10", "mrr")]
    for row, line in zip(cells, lines, strict=True):
        assert int(row[1]) == line["seeds"]
        for cell, key in zip(row[2:], [*keys, "ioacas mrr"], strict=False):
            spread = f" ± {line[f'{key} spread']:.3f}" if line["seeds"] > 1 else ""
            assert cell == f"{line[key]:.3f}{spread}"
    widest = max(line["anywhere top1 spread"] for line in lines)
    assert f"Seeds lie up to {100 * widest:.1f} points of top-1 anywhere" in " ".join(
        README.split()
    )


def test_the_readme_says_what_was_attacked():
    found = result("robustness")
    assert f"<!-- robustness -->\n{robustness.table(found)}\n<!-- /robustness -->" in README
    if "service" in found:
        memory = found["service"]["memory_mb"]
        assert found["service"]["wrong"] == 0
        assert memory["last_minute"] <= 1.05 * memory["first_minute"]
