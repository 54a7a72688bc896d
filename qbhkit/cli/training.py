"""``qbhkit train``, ``cross-validate``, ``ablate`` and ``bench``."""

import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from qbhkit.cli import options as opt
from qbhkit.cli.terminal import quiet, say
from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.storage import cache_dir, data_dir, write_json

if TYPE_CHECKING:
    from qbhkit.training_loop import RunConfig


app = typer.Typer()


@opt.add_command(app, "train", "qbhkit train tiny --out runs/tiny --set epochs=3 --resume")
def train(
    config: opt.Config,
    overrides: opt.Overrides = None,
    resume: Annotated[bool, opt.flag("--resume", "continue from the last checkpoint")] = False,
    device: Annotated[
        Literal["auto", "cpu", "cuda"], typer.Option(help="auto: the GPU if there is one")
    ] = "auto",
    devices: Annotated[
        int, opt.option("N", "number of GPUs, or of CPU processes, that share each batch")
    ] = 1,
    out: Annotated[
        Path | None, opt.option("DIR", "for checkpoint and weights (default: in the cache)")
    ] = None,
    log: Annotated[Path | None, opt.option("JSON", "the curve (default: in DIR)")] = None,
    data: opt.Data = None,
) -> int:
    """Train an encoder or a melody network."""
    from qbhkit.config import RENAMED_VALUES, config_path, read_yaml
    from qbhkit.figures import save_figure, training_figure
    from qbhkit.storage import read_json

    path = config_path(config)
    values = read_yaml(path, overrides or ())
    out = out or cache_dir() / "runs" / path.stem
    log = log or out / f"train_{path.stem}.json"
    run = _Run(values, path, out, log, resume, device, devices)
    kinds = {"melody": _train_melody, "state-distillation": _distil}
    kind = str(values.get("kind"))
    kinds.get(RENAMED_VALUES.get(kind, kind), _train_embedding)(run, data or data_dir())
    curve = read_json(log, "train again")["curve"]
    save_figure(training_figure(curve, path.stem), out, "curve")
    print(f"weights: {run.weights}\ncurve: {log}")
    return 0


class _Run(NamedTuple):
    """The arguments of a training run."""

    values: dict[str, Any]
    path: Path
    out: Path
    log: Path
    resume: bool
    device: str
    devices: int

    @property
    def weights(self) -> Path:
        return self.out / f"{self.path.stem}.safetensors"

    def find(self, name: str) -> Path:
        """Find a file that the configuration names: here, beside it, or in the cache."""
        places = [place / name for place in (Path(), self.path.parent, cache_dir())]
        return next((path for path in places if path.is_file()), places[0])

    def carried(self, config: "RunConfig") -> dict[str, Any]:
        """Return the arguments that every kind of training takes."""
        from qbhkit.training_loop import make_fabric

        fabric = make_fabric(config, self.device, self.devices)
        return {"resume": self.resume, "progress": not quiet(), "fabric": fabric}


def _train_embedding(run: _Run, data: Path) -> None:
    from qbhkit.config import build_config
    from qbhkit.corpora import open_source, songs_of
    from qbhkit.corpora.training_songs import training_songs
    from qbhkit.embedding.embedder import export_encoder
    from qbhkit.embedding.hum_pairs import HumPairs, align_pairs
    from qbhkit.embedding.training import TrainConfig, pair_evaluator, song_source, train_encoder
    from qbhkit.pitch.trackers import get_tracker

    config = build_config(TrainConfig, run.values, str(run.path))
    carried = run.carried(config)
    songs = training_songs(config.corpora, data, config.hop_s, config.song_filter)
    say(f"{len(songs.ids)} songs, {len(set(songs.groups))} tunes to train on")
    drawn = song_source(config, songs)
    hums = None
    if config.hums is not None:
        corpora = (corpus for source in config.songs for corpus in open_source(source, data))
        sung = (song for corpus in corpora for song in songs_of(corpus))
        pairs = run.find(config.pairs)
        aligned = align_pairs(pairs, sung, config.hop_s, get_tracker(), progress=not quiet())
        reading, how = config.window.reading, config.normalisation
        hums = HumPairs(*aligned, config.hums, reading, how, config.song_faults)
    validate = pair_evaluator(config, songs.held_out)
    encoder = train_encoder(config, drawn, run.out, run.log, hums, validate, **carried)
    export_encoder(encoder, run.weights, config.window.reading, config.normalisation)


def _distil(run: _Run, data: Path) -> None:
    from qbhkit.config import build_config
    from qbhkit.embedding.distillation import DistillationConfig, export_student, train_student
    from qbhkit.embedding.embedder import ContourEmbedder
    from qbhkit.embedding.rendered_pairs import RenderedBank, read_rendered

    config = build_config(DistillationConfig, run.values, str(run.path))
    carried = run.carried(config)
    bank = RenderedBank(read_rendered(run.find(config.bank)))
    say(f"{len(bank)} rendered hums to train on")
    encoder = train_student(config, bank, run.out, run.log, **carried)
    export_student(encoder, run.weights, ContourEmbedder(config.teacher), bank.states_of)


def _train_melody(run: _Run, data: Path) -> None:
    from qbhkit.config import build_config
    from qbhkit.pitch.crnn_lite import export_lite
    from qbhkit.pitch.self_training import label_recordings
    from qbhkit.pitch.training import (
        MelodyTrainConfig,
        best_threshold,
        estimate_pitch,
        mixture_evaluator,
        train_melody_network,
        watch,
    )
    from qbhkit.pitch.training_material import training_material

    config = build_config(MelodyTrainConfig, run.values, str(run.path))
    carried = run.carried(config)
    material = training_material(config, data, cache_dir() / "stems", progress=not quiet())
    say(
        f"{len(material.bank)} excerpts and {len(material.voices)} recordings to train on, "
        f"{len(material.watched_voices)} recordings to validate on"
    )
    watched = watch(config, material.watched_bank, material.watched_voices)
    evaluate = mixture_evaluator(config, watched)
    if config.recordings:
        folder, labels = Path(config.recordings).expanduser(), cache_dir() / "self-training"
        carried["segments"] = label_recordings(folder, config.teacher, labels, not quiet())
        say(f"{len(carried['segments'])} segments of {folder} to train on")
    network = train_melody_network(
        config, material.bank, material.voices, run.out, run.log, evaluate, **carried
    )
    found = estimate_pitch(network, watched, config.blur_st)
    export_lite(network, run.weights, *map(best_threshold, found))


@opt.add_command(
    app,
    "cross-validate",
    "qbhkit cross-validate best --out folds.json --stress",
    former="crossfold",
)
def cross_validate(
    config: opt.Config,
    out: opt.OutJson,
    overrides: opt.Overrides = None,
    init_from: Annotated[
        str | None, opt.option("NAME", "weights to start from (default: those of CONFIG)")
    ] = None,
    no_finetune: Annotated[
        bool, opt.flag("--no-finetune", "score the weights without fine-tuning them")
    ] = False,
    stress: Annotated[
        bool, opt.flag("--stress", "search transposed and stretched hums too")
    ] = False,
    models: opt.Models = None,
    tracker: opt.HumTracker = None,
    data: opt.Data = None,
) -> int:
    """Score a training recipe on hums whose songs and singers the model has not seen."""
    from dataclasses import asdict, replace

    from qbhkit.config import config_path, load_config
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.evaluation import cross_validation
    from qbhkit.weights import weights_path

    recipe = load_config(TrainConfig, config, overrides or ())
    recipe = replace(recipe, init_from=str(weights_path(init_from or recipe.init_from)))
    if no_finetune:
        recipe = replace(recipe, hums=None)
    progress = not quiet()
    cv_data = cross_validation.mir_qbsh_data(recipe, data or data_dir(), tracker, progress)
    folder = models or cache_dir() / "cross-validation" / config_path(config).stem
    found = cross_validation.cross_validate(
        recipe, cv_data, folder, stress, progress, ("vote", "full", "vector")
    )
    named = replace(recipe, init_from=Path(recipe.init_from).stem)
    result = {"config": asdict(named), "songs": len(cv_data.songs.contours), **found}
    write_json(out, result)
    for method, blocks in {"vote": found, **found["methods"]}.items():
        for name, block in blocks.items():
            if "ranks" in block:
                cells = "  ".join(f"{key} {block[key]:.3f}" for key in ("top1", "top10", "mrr"))
                print(f"{method:8}{name:28}{cells}")
    for match_from, block in found.get("refusal", {}).items():
        print(f"refusal {match_from:28}" + "  ".join(f"{key} {block[key]:.3f}" for key in block))
    return 0


@opt.add_command(app, "ablate", "qbhkit ablate ablation --budget tiny --out table.json")
def ablate(
    grid: Annotated[str, opt.argument("GRID", "YAML file or shipped name")],
    budget: Annotated[str, opt.option("NAME", "one of GRID's budgets")],
    out: Annotated[Path, opt.option("JSON", "resumed if it exists")],
    overrides: opt.Overrides = None,
    models: opt.Models = None,
    tracker: opt.HumTracker = None,
    data: opt.Data = None,
) -> int:
    """Compare training recipes that differ in one part."""
    from qbhkit.config import config_path, load_config
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.evaluation import ablation, cross_validation

    recipes = load_config(ablation.Grid, grid, overrides or ())
    progress = not quiet()

    def data_for(config: TrainConfig) -> cross_validation.CrossValidationData:
        return cross_validation.mir_qbsh_data(config, data or data_dir(), tracker, progress)

    folder = models or cache_dir() / "ablation" / config_path(grid).stem
    found = ablation.ablate(recipes, budget, data_for, folder, out, progress)
    print(f"{'':40}{'start: top-1':>14}{'top-10':>9}{'anywhere: top-1':>17}{'top-10':>9}")
    for line in ablation.table(found):
        start, anywhere = (
            [f"{line[f'{match_from} {key}']:.3f}" for key in ("top1", "top10")]
            for match_from in cross_validation.MATCH_FROM
        )
        print(f"{line['row']:40}{start[0]:>14}{start[1]:>9}{anywhere[0]:>17}{anywhere[1]:>9}")
    return 0


# What follows the benchmark's name is passed on to it, --help included.
@opt.add_command(
    app,
    "bench",
    "qbhkit bench augment",
    cls=None,
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
)
def bench(
    name: Annotated[str, opt.argument("NAME", "an unknown name lists all")],
    rest: Annotated[list[str] | None, opt.argument("OPTIONS", "of the benchmark")] = None,
) -> int:
    """Run one of the kit's benchmarks."""
    from qbhkit.evaluation import benchmarks

    found = (module.name for module in iter_modules(benchmarks.__path__))
    names = [one.removeprefix("bench_") for one in found if one.startswith("bench_")]
    if name not in names:
        raise QbhError(f"There is no benchmark {name!r}: use one of {', '.join(names)}.")
    try:
        benchmark = import_module(f"{benchmarks.__name__}.bench_{name}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("qbhkit"):
            raise
        raise MissingPackageError(
            f"The benchmark {name} needs {error.name}: pip install {error.name}."
        ) from None
    sys.argv = [f"qbhkit bench {name}", *(rest or [])]
    return int(benchmark.main() or 0)
