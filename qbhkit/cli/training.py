"""``qbhkit train``, ``crossfold``, ``ablate`` and ``bench``."""

import argparse
import runpy
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from qbhkit.cli.terminal import quiet, say
from qbhkit.errors import QbhError
from qbhkit.storage import cache_dir, data_dir, write_json

if TYPE_CHECKING:
    from qbhkit.contour import Contour
    from qbhkit.embedding.sampling import Hummed
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.runs import RunConfig


def train(options: argparse.Namespace) -> int:
    """Run ``qbhkit train``."""
    from qbhkit.config import config_path, read_yaml
    from qbhkit.figures import save_figure, training_figure
    from qbhkit.storage import read_json

    path = config_path(options.config)
    values = read_yaml(path)
    out = options.out or cache_dir() / "runs" / path.stem
    log = options.log or out / f"train_{path.stem}.json"
    data = options.data or data_dir()
    run = _Run(values, path, out, log, options)
    kinds = {"melody": _train_melody, "end-to-end": _train_end_to_end}
    kinds.get(str(values.get("kind")), _train_embedding)(run, data)
    curve = read_json(log, "train again")["curve"]
    save_figure(training_figure(curve, path.stem), out, "curve")
    print(f"weights: {run.weights}\ncurve: {log}")
    return 0


class _Run(NamedTuple):
    """What a training run was asked for."""

    values: dict[str, Any]
    path: Path
    out: Path
    log: Path
    options: argparse.Namespace

    @property
    def weights(self) -> Path:
        return self.out / f"{self.path.stem}.safetensors"

    def carried(self, config: "RunConfig") -> dict[str, Any]:
        """Return the arguments that every kind of training takes."""
        from qbhkit.runs import make_fabric

        fabric = make_fabric(config, self.options.device, self.options.devices)
        return {"resume": self.options.resume, "progress": not quiet(), "fabric": fabric}


def _train_embedding(run: _Run, data: Path) -> None:
    from qbhkit.config import build
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.encoders import export_encoder
    from qbhkit.embedding.sampling import HumPairs
    from qbhkit.embedding.training import TrainConfig, pair_evaluator, song_source, train
    from qbhkit.retrieval.evaluate import pair_mrr

    config = build(TrainConfig, run.values, str(run.path))
    carried = run.carried(config)
    songs = training_songs(config.corpora, data, config.hop_s)
    say(f"{len(songs.ids)} songs, {len(set(songs.groups))} tunes to learn from")
    drawn = song_source(config, songs)
    hums = None
    if config.hums is not None:
        listened, contours = _hear_pairs(config, run.path.parent, data)
        reading = config.window.reading
        hums = HumPairs(listened, contours, config.hums, reading, config.normalisation)
    validate = pair_evaluator(config, songs.held_out, pair_mrr)
    encoder = train(config, drawn, run.out, run.log, hums, validate, **carried)
    export_encoder(encoder, run.weights, config.window.reading, config.normalisation)


def _hear_pairs(
    config: "TrainConfig", folder: Path, data: Path
) -> "tuple[list[Hummed], list[Contour]]":
    """Hear the hums of a configuration, which lies in a folder, and lay them along their songs."""
    from tqdm import tqdm

    from qbhkit.corpora import open_source, songs_of
    from qbhkit.corpora.pairs import read_pairs
    from qbhkit.melody.trackers import get_tracker
    from qbhkit.retrieval.crossfold import hear

    named = _found(config.pairs, folder)
    pairs = read_pairs(named)
    corpora = [corpus for source in config.songs for corpus in open_source(source, data)]
    songs = [song for corpus in corpora for song in songs_of(corpus)]
    number = {song.id: k for k, song in enumerate(songs)}
    contours = [song.contour(config.hop_s) for song in songs]
    tracker, hums = get_tracker(), []
    for pair in tqdm(pairs, desc="melody", unit="hum", disable=quiet()):
        if pair.song_id not in number:
            raise QbhError(f"{named} names the song {pair.song_id}, which is not in 'songs'.")
        song = number[pair.song_id]
        hums.append(hear(pair.hum, song, contours[song], tracker, pair.start_s, pair.end_s))
    return hums, contours


def _found(name: str, folder: Path) -> Path:
    """Look for a file that a configuration names: here, beside the configuration, in the cache."""
    places = [place / name for place in (Path(), folder, cache_dir())]
    return next((path for path in places if path.is_file()), places[0])


def _train_end_to_end(run: _Run, data: Path) -> None:
    from qbhkit.config import build
    from qbhkit.embedding.encoders import ContourEmbedder
    from qbhkit.embedding.end_to_end import EndToEndConfig, export_audio_encoder, train
    from qbhkit.embedding.performances import PerformanceBank, read_performances
    from qbhkit.retrieval.evaluate import pair_mrr

    config = build(EndToEndConfig, run.values, str(run.path))
    carried = run.carried(config)
    bank = PerformanceBank(read_performances(_found(config.bank, run.path.parent)))
    say(f"{len(bank)} performances to learn from")
    encoder = train(config, bank, run.out, run.log, pair_mrr, **carried)
    export_audio_encoder(encoder, run.weights, ContourEmbedder(config.teacher), bank.heard_by)


def _train_melody(run: _Run, data: Path) -> None:
    from qbhkit.config import build
    from qbhkit.melody.lite import export_lite
    from qbhkit.melody.training import (
        MelodyTrainConfig,
        best_threshold,
        listen,
        mixture_evaluator,
        train,
        watch,
    )
    from qbhkit.melody.voices import training_material

    config = build(MelodyTrainConfig, run.values, str(run.path))
    carried = run.carried(config)
    material = training_material(config, data, cache_dir() / "stems", progress=not quiet())
    say(
        f"{len(material.bank)} excerpts and {len(material.voices)} recordings to learn from, "
        f"{len(material.watched_voices)} recordings to watch"
    )
    watched = watch(config, material.watched_bank, material.watched_voices)
    evaluate = mixture_evaluator(config, watched)
    network = train(config, material.bank, material.voices, run.out, run.log, evaluate, **carried)
    export_lite(network, run.weights, best_threshold(listen(network, watched, config.blur_st)))


def crossfold(options: argparse.Namespace) -> int:
    """Run ``qbhkit crossfold``."""
    from dataclasses import asdict, replace

    from qbhkit.config import build, config_path, read_yaml
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.retrieval import crossfold
    from qbhkit.weights import weights_path

    path = config_path(options.config)
    config = build(TrainConfig, read_yaml(path), str(path))
    config = replace(config, start=str(weights_path(options.start or config.start)))
    if options.only_start:
        config = replace(config, hums=None)
    data, progress = options.data or data_dir(), not quiet()
    ground = crossfold.mir_qbsh(config, data, options.tracker, progress)
    folder = options.models or cache_dir() / "crossfold" / path.stem
    found = crossfold.cross_fold(
        config, ground, folder, options.stress, progress, ("vote", "full", "vector")
    )
    named = replace(config, start=Path(config.start).stem)
    result = {"config": asdict(named), "songs": len(ground.book.contours), **found}
    write_json(options.out, result)
    for method, blocks in {"vote": found, **found["methods"]}.items():
        for name, block in blocks.items():
            if "ranks" in block:
                cells = "  ".join(f"{key} {block[key]:.3f}" for key in ("top1", "top10", "mrr"))
                print(f"{method:8}{name:28}{cells}")
    for anchor, block in found.get("refusal", {}).items():
        print(f"refusal {anchor:28}" + "  ".join(f"{key} {block[key]:.3f}" for key in block))
    return 0


def ablate(options: argparse.Namespace) -> int:
    """Run ``qbhkit ablate``."""
    from qbhkit.config import build, config_path, read_yaml
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.retrieval import ablation, crossfold

    path = config_path(options.grid)
    grid = build(ablation.Grid, read_yaml(path), str(path))
    data, progress = options.data or data_dir(), not quiet()

    def ground_of(config: TrainConfig) -> crossfold.Ground:
        return crossfold.mir_qbsh(config, data, options.tracker, progress)

    folder = options.models or cache_dir() / "ablation" / path.stem
    found = ablation.ablate(grid, options.budget, ground_of, folder, options.out, progress)
    print(f"{'':40}{'start: top-1':>14}{'top-10':>9}{'anywhere: top-1':>17}{'top-10':>9}")
    for line in ablation.table(found):
        start, anywhere = (
            [f"{line[f'{anchor} {key}']:.3f}" for key in ("top1", "top10")]
            for anchor in crossfold.ANCHORS
        )
        print(f"{line['row']:40}{start[0]:>14}{start[1]:>9}{anywhere[0]:>17}{anywhere[1]:>9}")
    return 0


def bench(options: argparse.Namespace) -> int:
    """Run ``qbhkit bench``."""
    folder = Path("tests/benchmarks")
    script = folder / f"bench_{options.name}.py"
    if not script.is_file():
        names = ", ".join(sorted(path.stem[6:] for path in folder.glob("bench_*.py")))
        raise QbhError(
            f"There is no benchmark {options.name!r} here"
            + (f": use one of {names}." if names else ": run it from a checkout of the repository.")
        )
    sys.argv = [str(script), *options.rest]
    sys.path.insert(0, str(folder.resolve()))  # benchmarks share a module beside them
    runpy.run_path(str(script), run_name="__main__")
    return 0
