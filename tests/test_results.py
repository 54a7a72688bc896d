"""Every number of the pages, the model cards and the notebooks' prose comes from data/results.

The page of results is generated. What the others must say is claimed below, word for word; a number
that no claim covers stands in a list of facts with its source, or the test fails.
"""

import json
import re
import tomllib
from functools import cache
from importlib import import_module
from pathlib import Path

import jupytext
import make_results
import pytest

from qbhkit.config import build_config, config_path, read_yaml
from qbhkit.corpora.training_songs import read_split
from qbhkit.embedding.distillation import StateEmbedder
from qbhkit.embedding.training import TrainConfig
from qbhkit.evaluation.ablation import table
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
FIELDS = metrics([])._fields
# Numbers with a decimal point, a thousands comma or a per cent sign that no result can hold: where
# they come from. Everything else that looks like one must be claimed below.
FACTS = {
    "1,000": "songs under which the threshold is adjusted (qbhkit.retrieval.confidence)",
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


def by_vote_or(method, found, match_from):
    """The block of a crossed-fold result: that of voting stands at its top."""
    return found[match_from] if method == "vote" else found["methods"][method][match_from]


@claims
def the_python_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    versions = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    yield f"Python {', '.join(versions[:-1])} or {versions[-1]}"


@claims
def what_to_expect():
    best, far = result("crossfold_best")["methods"]["full"], result("distractors")["all"]
    songs = result("crossfold_best")["songs"]
    start, anywhere, ioacas = best["start"], best["anywhere"], best["ioacas"]
    others = best["anywhere, other years"]
    blocks = {
        f"{start['n']} of MIR-QBSH (2009) against {songs:,} songs, begun where the song "
        "begins": start,
        "the same, compared with every place of every song": anywhere,
        f"{others['n']:,} of the other years of MIR-QBSH, compared with every place": others,
        f"{ioacas['n']} of IOACAS, begun anywhere, other singers and songs": ioacas,
        f"MIR-QBSH against {far['songs'] // 100 * 100:,} songs, anywhere, by weights trained "
        "without hums": far["anywhere"],
    }
    for what, block in blocks.items():
        yield row(what, f"{block['top1']:.3f}", f"{block['top10']:.3f}")
    refused = [block["refused"] for block in result("crossfold_best")["refusal"].values()]
    yield f"{songs:,} songs are few"
    yield f"the kit refuses {min(refused):.0%} to {max(refused):.0%} of the hums of it"
    dtw = result("hums_anywhere")["methods"]["dtw"]
    yield f"A plain dynamic time warping finds {dtw['top1']:.3f}"


@claims
def what_makes_it_harder():
    real, hums = result("real_songs"), result("degraded_hums")["hums"]
    heard, typed = (real["retrieval"][name]["full"] for name in ("crnn-lite-lead", "typed notes"))
    yield (
        f"of {real['hums']} hums synthesised from the typed notes of {len(real['terms'])} songs, "
        f"{heard['top1']:.3f} found their song first among {real['songs']:,}"
    )
    melodia = real["retrieval"]["melodia"]["full"]
    yield f"{melodia['top1']:.3f} where Melodia had"
    yield f"and {typed['top1']:.3f} where the catalogue held the notes"
    clean, second = (hums[name]["top1"] for name in ("clean", "second voice"))
    yield "A second voice 10 dB softer"
    yield f"from {clean:.3f} to {second:.3f}"


def test_the_page_of_results_is_made_from_the_files():
    assert (ROOT / "data" / "results" / "README.md").read_text("utf-8") == make_results.page()


def test_the_recorded_results_agree_with_one_another():
    best, robust, repeated = (result(n) for n in ("crossfold_best", "robustness", "reproduce"))
    singers = result("hums_start")["singers"]
    for match_from in MATCH_FROM:
        block = best["methods"]["full"][match_from]
        assert block["per_singer"] == grouped(block["ranks"], singers)
        for method in ("full", "vote", "vector"):
            block = by_vote_or(method, best, match_from)
            assert metrics(block["ranks"])._asdict() == {key: block[key] for key in FIELDS}
            assert block["n"] == 423
            assert by_vote_or(method, best, f"{match_from}, other years")["n"] == 1531
    song = result("song_end_to_end")
    assert metrics(song["ranks"])._asdict() == {key: song[key] for key in FIELDS}
    assert result("bench_cluster")["catalogues_equal"]
    memory = robust["service"]["memory_mb"]
    assert memory["last_minute"] <= 1.05 * memory["first_minute"]
    assert robust["service"]["wrong"] == 0
    assert robust["mutants"]["killed"] >= 0.9 * robust["mutants"]["mutants"]
    for module in robust["mutants"]["modules"].values():
        assert all(survivor["reason"] for survivor in module["survivors"])
    for run in ("full", "with_best", "full_without_bfloat16"):
        assert not any(block["outside"] for block in repeated[run]["files"].values())
    assert repeated["threads"]["two threads again"]["bytes_as_first"]


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


TRACKER_OF = {"crnn-lite": "crnn-lite", "crnn-lite-2": "crnn-lite-lead"}
CARD_FACTS = {
    "stage1": {"7,311": "melodies: tunes without their variants (qbhkit.corpora.training_songs)"},
    "stage1-all": {
        "29,471": "songs that passed both filters (qbhkit.corpora.training_songs)",
        "23,208": "melodies: the same without variants",
        "4.0": "of CC BY 4.0",
    },
    "best": {
        "2,000": "distractors of MIREX",
        "1,954": "hums of all years",
        "1,531": "without 2009",
    },
    "published": {
        "100,000": "songs that the published system learnt from",
        "1,000": "hums that it learnt from; steps an epoch in the configuration",
    },
    "crnn-lite": {
        "1.5 %": "of frames that training labels drew into rests, before that was mended",
        "2.5": "MB: four bytes for each of its numbers",
    },
    "crnn-lite-2": {"3.0": "MB: four bytes for each of its numbers"},
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
    songs = sum(read_split(corpus)["training"] for corpus in ("folk", "pop909"))
    against = f"against {result('hums_start')['songs']:,} songs"
    if name in ("stage1", "stage1-all", "best", "published"):
        yield f"{size:,} parameters"
    if name in ("stage1", "best", "published"):
        yield against
    if name == "stage1-all":
        yield f"{read_split('lmd_vocals')['training']:,} pop vocal lines"
        yield f"{read_split('hooktheory')['training']:,} pop excerpts"
    if name == "stage1":
        yield f"{songs:,} songs ("
    if name in ("stage1", "best"):
        for match_from in MATCH_FROM:
            if name == "stage1":
                yield measured(result(f"hums_{match_from}")["methods"]["vote"])
            else:
                yield measured(by_vote_or("vote", result("crossfold_best"), match_from))
                yield measured(by_vote_or("full", result("crossfold_best"), match_from))
                others = f"{match_from}, other years"
                yield measured(by_vote_or("full", result("crossfold_best"), others))
    if name == "best":
        for method in ("vote", "full"):
            yield measured(by_vote_or(method, result("crossfold_best"), "ioacas"))
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
    if name in TRACKER_OF:
        last = result(f"train_{name}")["curve"][-1]
        sets = result("melody_bench")["trackers"][TRACKER_OF[name]]["sets"]
        yield f"{size:,} parameters"
        for target in ("", "lead_") if name == "crnn-lite-2" else ("",):
            yield (
                f"raw pitch accuracy {last[f'{target}raw_pitch_accuracy']:.3f}, overall accuracy "
                f"{last[f'{target}overall_accuracy']:.3f}"
            )
        for kind in ("songs +5 dB", "songs 0 dB", "songs -5 dB"):
            yield f"{kind[6:]} {sets[kind]['overall_accuracy']:.3f}"
    if name == "crnn-lite":
        yield f"raw pitch {sets['agreement']['raw_pitch_accuracy']:.3f}"
        yield f"false alarm {sets['agreement']['voicing_false_alarm']:.3f}"
        yield f"voicing ({load_weights('crnn-lite').config['threshold']})"
    if name == "crnn-lite-2":
        yield f"hums {sets['hums']['overall_accuracy']:.3f}"
        yield f"play the tune {sets['instrumental']['overall_accuracy']:.3f}"
        yield f"{config['mix']['dense']:.0%} of the accompaniments are dense"
        yield f"In {config['mix']['split']:.0%} of the excerpts"
        (threshold,) = set(load_weights(name).config["thresholds"])
        yield f"({threshold})"
        for tracker in TRACKER_OF.values():
            heard = result("real_songs")["trackers"][tracker]["mean"]
            yield f"{heard['voiced_pitch_class_accuracy']:.3f}"


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
    "0.1": "of the score for a semitone of distance (DECISIONS.md, Vote, align, fold, add)",
    "0.2": "the same for pitch classes",
    "0.75": "of the tempo: how slowly notebook 10 renders hums",
    "1.33": "how fast",
    "0.7": "how notebook 10 stretches hums",
    "1.4": "how notebook 10 stretches hums",
    "0.8": "semitones by which its singers miss a note",
    "2,000": "distractors of MIREX",
    "1,000": "tunes of the demo (Makefile)",
    "0.15": "semitones: a smaller step is held (bench_real_songs.shape)",
    "1.5": "semitones: a larger step does not slide",
    "1.2": "semitones: hums.farthest_st of the shipped configuration",
}


@cache
def claims_of_notebooks():
    """Return what the notebooks must say somewhere, word for word."""
    songs = result("hums_start")["songs"]
    widest = max(line["anywhere top1 spread"] for line in table(result("ablation")))
    return (
        f"the {songs:,} songs of the MIREX database",
        f"423 real hums, searched among {songs:,} songs",
        f"423 real hums, none of which it was trained on, among {songs:,} songs",
        f"queries against 298 songs and the {songs:,} above",
        f"differ by up to {100 * widest:.1f} points from their mean",
    )


@cache
def prose_of(source):
    """The markdown of a notebook without code and formulas."""
    cells = jupytext.read(source).cells
    text = " ".join(cell.source for cell in cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```|`[^`]*`|\$\$?.*?\$\$?", "", text, flags=re.DOTALL)
    return " ".join(text.split())


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_numbers_in_the_prose_of_notebooks_have_a_source(source):
    assert unclaimed(prose_of(source), claims_of_notebooks()) <= set(NOTEBOOK_FACTS)


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
    measured = result("crossfold_best")["calibration"]
    assert load_weights("best").config["calibration"] == measured


@pytest.mark.parametrize(
    ("name", "module", "kind"),
    [
        ("stage1", "qbhkit.embedding.training", "TrainConfig"),
        ("stage1-all", "qbhkit.embedding.training", "TrainConfig"),
        ("best", "qbhkit.embedding.training", "TrainConfig"),
        ("published-stage1", "qbhkit.embedding.training", "TrainConfig"),
        ("published", "qbhkit.embedding.training", "TrainConfig"),
        ("crnn-lite", "qbhkit.pitch.training", "MelodyTrainConfig"),
        ("crnn-lite-2", "qbhkit.pitch.training", "MelodyTrainConfig"),
    ],
)
def test_the_recorded_training_is_that_of_the_shipped_configuration(name, module, kind):
    config = getattr(import_module(module), kind)
    values = result(f"train_{name}")["config"]
    assert values.pop("events", None) is None  # a former key, which no shipped recipe set
    recorded = build_config(config, values, name)
    path = config_path(name)
    assert recorded == build_config(config, read_yaml(path), str(path))
    assert len(result(f"train_{name}")["curve"]) == recorded.epochs


def test_the_melody_results_are_of_the_shipped_weights():
    assert result("melody_bench")["trackers"]["crnn-lite"]["identity"] == identity_of("crnn-lite")
    assert result("song_end_to_end")["tracker"] == identity_of("crnn-lite")
