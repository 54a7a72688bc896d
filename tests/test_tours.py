"""The five tours of CONTRIBUTING.md are true: the code is run, and what it enters is compared."""

import re
import sys
from pathlib import Path

import pytest

import qbhkit
from qbhkit.config import load_config
from qbhkit.storage import asset

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "qbhkit"
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
TITLES = ("f0", "embed", "search", "evaluate", "train")
MOST = dict(zip(TITLES, (3, 4, 6, 6, 8), strict=True))
HUM, HUMMED = asset("hums/demo_1.flac"), "oneills1850-0487-0500-498"


def read_tours(page):
    """Title to the files that a tour lists, in order."""
    section = page.split("<!-- tours -->")[1].split("<!-- /tours -->")[0]
    entries = re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]
    files = [re.findall(r"`([\w/]+\.(?:py|yaml))`", entry) for entry in entries]
    return dict(zip(TITLES, files, strict=True))


def ground_floor(page):
    """The modules that tours pass through without stopping."""
    words = page.split("passes through the ground floor (")[1].split(")")[0]
    return {f"{name}.py" for name in re.findall(r"`(\w+)`", words)} | {"__init__.py"}


TOURS, GROUND = read_tours(PAGE), ground_floor(PAGE)


def entered(work):
    """The files of the kit whose functions a piece of work calls, in order of the first call."""
    found = {}

    def watch(frame, event, _argument):
        code = frame.f_code
        if event == "call" and code.co_name != "<module>":
            path = Path(code.co_filename)
            if path.is_relative_to(PACKAGE):
                found.setdefault(path.relative_to(PACKAGE).as_posix())

    before = sys.getprofile()
    sys.setprofile(watch)
    try:
        work()
    finally:
        sys.setprofile(before)
    return list(found)


def train_stage1(folder):
    """Train as stage1.yaml says, on few songs and for two steps."""
    from dataclasses import replace

    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.training import TrainConfig, song_source, train_encoder

    config = load_config(TrainConfig, "stage1")
    config = replace(config, epochs=1, steps_per_epoch=2, batch=8, bfloat16=False, threads=1)
    songs = training_songs(("airdsAirs",), folder)

    def work():
        train_encoder(
            config, song_source(config, songs), folder, folder / "log.json", progress=False
        )

    return work


@pytest.fixture(scope="module")
def works(hummed_catalogue, tmp_path_factory):
    """What each tour runs; whatever is loaded or compiled once has been."""
    searcher = qbhkit.open_searcher(hummed_catalogue)
    qbhkit.track(HUM)
    contour = qbhkit.to_contour(HUM)
    queries = tmp_path_factory.mktemp("queries") / "hums.csv"
    queries.write_text(f"path,song_id\n{HUM},{HUMMED}\n")
    methods = ["full", "vote", "vector", "dtw", "linear-scaling"]
    return {
        "f0": lambda: qbhkit.track(HUM),
        "embed": lambda: qbhkit.embed(contour),
        "search": lambda: searcher.search(HUM),
        "evaluate": lambda: qbhkit.evaluate(queries, searcher.catalogue.path, methods),
        "train": train_stage1(tmp_path_factory.mktemp("run")),
    }


@pytest.mark.parametrize("title", TITLES)
def test_a_tour_enters_the_files_it_lists_and_no_others(title, works):
    from qbhkit.embedding import embedder

    embedder._opened.cache_clear()  # the weights are opened on the tour
    found = set(entered(works[title]))
    listed = {name for name in TOURS[title] if name.endswith(".py")}
    earlier = {name for known in TITLES[: TITLES.index(title)] for name in TOURS[known]}
    trackers = {"pitch/trackers/swift_f0.py"}  # hums are tracked by a page of its own
    assert listed <= found | earlier
    assert found - listed - earlier - GROUND - trackers == set()


@pytest.mark.parametrize("title", TITLES)
def test_a_tour_never_climbs_back_up(title):
    """It is short, its files exist, and none of them imports one that stands before it."""
    assert 1 < len(TOURS[title]) <= MOST[title]
    assert len(set(TOURS[title])) == len(TOURS[title])
    names = [name.removesuffix(".py").removesuffix("/__init__") for name in TOURS[title]]
    modules = [f"qbhkit.{name.replace('/', '.')}" for name in names]
    for number, name in enumerate(TOURS[title]):
        text = (PACKAGE / name).read_text("utf-8")
        head = re.sub(r"^( {4,}).*import .*$", "", text, flags=re.MULTILINE)
        for above in modules[:number]:
            assert not re.search(
                rf"^(from|import) {re.escape(above)}\b(?!\.)", head, re.MULTILINE
            ), f"{name} imports {above}"
