"""The readers of the kit that :mod:`fuzzing` attacks, and small good files of each.

What a reader needs is imported when it is attacked, so that its memory is its own.
"""

import argparse
import io
import json
import pickle
import shutil
import wave
import zipfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

LONGEST_AUDIO_S = 60.0
_WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("fuzz_words.yaml").read_text())
_LONG_WORDS = (b"1" * 400, b"[" * 400, b"A" * 5000)


@dataclass(frozen=True)
class Target:
    """A reader, the good files from which bad ones grow, and the words of their format."""

    # Names and bytes of the good files; what the reader needs beside them goes into the folder.
    seeds: Callable[[Path], dict[str, bytes]]
    read: Callable[[Path], object]
    words: str  # with Python's escapes, spaces between them
    guided: bool = False  # written in Python, so that its lines can guide the attack

    def vocabulary(self) -> tuple[bytes, ...]:
        """Return the format's words and those that trouble any reader."""
        words = f"{self.words} {_WORDS['common']}".split()
        escaped = (word.encode().decode("unicode_escape").encode("latin-1") for word in words)
        return (*escaped, *_LONG_WORDS)


def _abc_seeds(folder: Path) -> dict[str, bytes]:
    tune = "X:1\nT:One\nM:6/8\nL:1/8\nQ:1/4=120\nK:Gmix\n|:GAB c2d|{a}e3 ~d3|[CEG]2 z (3abc:|\n"
    book = tune + "X:2\nT:Two\nM:C\nK:Dm\nV:1\n^F,2 _B/2=c'>d|1 A4:|2 D8|]\nw: la la\n"
    return {"one.abc": tune.encode(), "book.abc": book.encode()}


def _read_abc(path: Path) -> object:
    from qbhkit.corpora.abc import AbcFiles, read_text, split_tunes

    if len(tunes := split_tunes(read_text(path))) > 50:  # a long book takes long: 2 ms a tune
        return tunes
    return list(AbcFiles((path,)).read(path))


def _midi_seeds(folder: Path) -> dict[str, bytes]:
    import symusic

    files: dict[str, bytes] = {}
    for name, kind in (("melody", 0), ("drums", 9)):
        score: Any = symusic.Score(480)
        track: Any = symusic.Track(name=name, is_drum=kind == 9)
        for step in range(12):
            track.notes.append(symusic.Note(240 * step, 200, 60 + step % 5, 90))
        score.tracks.append(track)
        score.tempos.append(symusic.Tempo(0, 120.0))
        files[f"{name}.mid"] = score.dumps_midi()
    return files


def _read_midi(path: Path) -> object:
    from qbhkit.corpora.midi import MidiFiles

    return list(MidiFiles((path,)).read(path))


def _f0_seeds(folder: Path) -> dict[str, bytes]:
    lines = [f"{k / 100:.2f},{220 + k % 9},{k % 3 > 0:d}" for k in range(60)]
    return {"a.f0.csv": ("time_s,frequency_hz,voicing\n" + "\n".join(lines)).encode()}


def _read_f0(path: Path) -> object:
    from qbhkit.contour import from_f0
    from qbhkit.f0_csv import read_f0_csv

    return from_f0(read_f0_csv(path))


def _label_seeds(folder: Path) -> dict[str, bytes]:
    (folder / "corpus" / "midiFile").mkdir(parents=True)
    (folder / "corpus" / "midiFile" / "00001.mid").touch()
    return {"00001.pv": b"0\n0\n60.125\n61\n" * 10, "songList.txt": b"00001\tA song\t\xa4\xa4\r\n"}


def _read_labels(path: Path) -> object:
    from qbhkit.corpora.folders import MirQbsh, read_pitch_vector

    if path.suffix == ".pv":
        return read_pitch_vector(path)
    corpus = path.parent / "corpus"
    shutil.copyfile(path, corpus / "midiFile" / "songList.txt")
    return MirQbsh(corpus)._titles()


def _corpus_seeds(folder: Path) -> dict[str, bytes]:
    melodies = io.BytesIO()
    np.savez(melodies, a=np.arange(60.0, 70.0), b=np.zeros(5))
    entry = {"song_id": 7, "frame_pos": [0, 4], "melody": [0.1, 0, 1, 2], "is_vocal": [1, 0, 1, 1]}
    return {
        "ioacas_queries_parselmouth_340.npz": melodies.getvalue(),
        "ioacas_queries_parselmouth_340_labels.json": b'{"a": "s1", "b": "s2"}',
        "contour_tiny.json": json.dumps([entry]).encode(),
    }


def _read_corpora(path: Path) -> object:
    from qbhkit.corpora.folders import Ioacas, SeedContours

    if path.name.startswith("contour"):
        return [song.contour() for song in SeedContours(path.parent).read(path)]
    melodies = path.parent / "ioacas_melodies_100ms_midi.npz"
    melodies.write_bytes((path.parent / "ioacas_queries_parselmouth_340.npz").read_bytes())
    corpus = Ioacas(path.parent)
    return [song.contour() for song in corpus.read(melodies)], corpus.queries()


def write_keras(folder: Path, values: Callable[[tuple[int, ...]], NDArray] | None) -> list[Path]:
    """Write Keras weights of the published shapes, and the mean and deviation that go with them.

    Without values the arrays take no room, and the last layer is of another size: it is refused.
    """
    import h5py

    from qbhkit.pitch.keras_weights import keras_layers

    paths = [folder / name for name in ("weights.hdf5", "mean.npy", "std.npy")]
    np.save(paths[1], np.zeros((31, 513), np.float32))
    np.save(paths[2], np.ones((31, 513), np.float32))
    with h5py.File(paths[0], "w") as stored:
        layers = {name.replace(".", "_"): shapes for name, shapes in keras_layers().items()}
        stored.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, shapes in layers.items():
            group = stored.create_group(layer)
            names = [f"array_{k}" for k in range(len(shapes))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, shape in zip(names, shapes.values(), strict=True):
                if values is not None:
                    group[name] = values(shape)
                else:
                    size = (*shape[:-1], 7) if layer == "output" else shape
                    group.create_dataset(name, size, "<f4")
    return paths


def _keras_seeds(folder: Path) -> dict[str, bytes]:
    weights, mean, std = write_keras(folder, None)
    std.rename(folder / "kept.npy")
    return {path.name: path.read_bytes() for path in (weights, mean)}


def _read_keras(path: Path) -> object:
    from qbhkit.pitch.keras_weights import convert_crnn

    kept = path.parent / "kept.npy"
    return convert_crnn(path, path if path.suffix == ".npy" else kept, kept, path.parent / "out")


def _torch_seeds(folder: Path) -> dict[str, bytes]:
    import torch

    from qbhkit.pitch.keras_weights import torch_names

    one = {False: torch.ones(()), True: torch.ones((), dtype=torch.int64)}
    state = {  # arrays of one number that is repeated, so that the file is small
        name: one[name.endswith("tracked")].expand(shape) for name, shape in torch_names().items()
    }
    state["final.bias"] = torch.ones(7)  # refused in the end: converting it takes long
    whole, old = io.BytesIO(), io.BytesIO()
    torch.save(state, whole)
    torch.save(state, old, _use_new_zipfile_serialization=False)
    with zipfile.ZipFile(whole) as archive:
        listed = archive.read("archive/data.pkl")
    return {"whole.pt": whole.getvalue(), "old.pt": old.getvalue(), "data.pkl": listed}


def _read_torch(path: Path) -> object:
    from qbhkit.pitch.keras_weights import convert_crnn

    mean, std, weights = (path.parent / name for name in ("mean.npy", "std.npy", "weights.pt"))
    np.save(mean, np.zeros((31, 513), np.float32))
    np.save(std, np.ones((31, 513), np.float32))
    shutil.copyfile(path, weights)
    if path.suffix == ".pkl":  # put into the archive, with a checksum that fits
        with (
            zipfile.ZipFile(path.parent / "whole.pt") as whole,
            zipfile.ZipFile(weights, "w") as archive,
        ):
            for name in whole.namelist():
                listed = name.endswith("data.pkl")
                archive.writestr(name, path.read_bytes() if listed else whole.read(name))
    return convert_crnn(weights, mean, std, path.parent / "out")


def _original_seeds(folder: Path) -> dict[str, bytes]:
    import torch

    values = _WORDS["hparams"]
    checkpoint = io.BytesIO()
    layer = {"encoder.conv_0.conv_norm.0.weight": torch.zeros(8, 2, 3), "fc.bias": torch.ones(12)}
    torch.save({"state_dict": layer, "optimizer": {"lr": [1.0]}}, checkpoint)
    old = io.BytesIO()
    torch.save({"state_dict": layer}, old, _use_new_zipfile_serialization=False)
    return {
        "hparams.dat": pickle.dumps(argparse.Namespace(**values)),
        "hparams.dat-0": pickle.dumps(values, 0),
        "checkpoint_best.pt": checkpoint.getvalue(),
        "checkpoint_best.pt-old": old.getvalue(),
    }


def _read_original(path: Path) -> object:
    from qbhkit.embedding.import_checkpoint import import_checkpoint

    folder, seeds = path.parent / "original", _original_seeds(path.parent)
    folder.mkdir(exist_ok=True)
    for name in ("hparams.dat", "checkpoint_best.pt"):
        (folder / name).write_bytes(seeds[name])
    (folder / path.name.split("-")[0]).write_bytes(path.read_bytes())
    return import_checkpoint(folder, path.parent / "out")


def _catalogue_seeds(folder: Path) -> dict[str, bytes]:
    from qbhkit.catalogue.build import build_catalogue
    from qbhkit.catalogue.read import open_catalogue
    from qbhkit.corpora.songs import Song
    from qbhkit.retrieval.index_faiss import FaissIndex

    rng, place = np.random.default_rng(0), folder / "catalogue"
    songs = []
    for number in range(3):
        columns = np.arange(24) * 0.5, np.full(24, 0.45), rng.integers(55, 75, 24)
        songs.append(Song(f"s{number}", "A song", "x.mid", "CC0", np.stack(columns, axis=1)))
    build_catalogue(songs, place, "stage1", progress=False)
    FaissIndex.build(open_catalogue(place))
    files = {
        "manifest.json": place / "manifest.json",
        "shard.safetensors": next(place.glob("shards/*.safetensors")),
        "index.faiss": next(place.glob("faiss/*.faiss")),
        "index.json": place / "faiss" / "manifest.json",
    }
    return {name: path.read_bytes() for name, path in files.items()}


def _mended_catalogue(path: Path) -> Path:
    """Put a damaged file into a copy of the catalogue, with every checksum made to fit it."""
    from qbhkit.catalogue.files import _signed
    from qbhkit.storage import sha256_file

    copy = path.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path.parent / "catalogue", copy)
    signed, listed = copy / "manifest.json", copy / "faiss" / "manifest.json"
    if path.name == "manifest.json":
        signed.write_bytes(path.read_bytes())
        with suppress(ValueError, AttributeError, TypeError, RecursionError):
            values = json.loads(path.read_bytes())
            values.pop("sha256", None)
            signed.write_text(_signed(values))
    elif path.name == "index.json":
        shutil.copyfile(path, listed)
    elif path.name == "index.faiss":
        index = json.loads(listed.read_text())
        shutil.copyfile(path, copy / "faiss" / index["file"])
        listed.write_text(json.dumps(index | {"sha256": sha256_file(path)}))
    else:
        manifest, digest = json.loads(signed.read_text()), sha256_file(path)
        shutil.copyfile(path, copy / "shards" / f"{digest}.safetensors")
        manifest["shards"][0]["sha256"] = digest
        del manifest["sha256"]
        signed.write_text(_signed(manifest))
    return copy


def _read_catalogue(path: Path) -> object:
    from qbhkit.catalogue.edit import describe_catalogue, verify_catalogue
    from qbhkit.catalogue.read import open_catalogue
    from qbhkit.retrieval.index_faiss import FaissIndex

    place = _mended_catalogue(path)
    catalogue = open_catalogue(place)
    index = FaissIndex.open(catalogue)
    index.nearest(np.eye(1, catalogue.vectors.shape[1], dtype=np.float32), 3)
    return describe_catalogue(place), verify_catalogue(place)


def _config_seeds(folder: Path) -> dict[str, bytes]:
    import qbhkit

    shipped = Path(qbhkit.__file__).parent / "configs"
    return {path.name: path.read_bytes() for path in sorted(shipped.glob("*.yaml"))}


def _read_config(path: Path) -> object:
    from qbhkit.config import build_config, read_yaml
    from qbhkit.embedding.distillation import DISTILLATION_KIND, DistillationConfig
    from qbhkit.embedding.training import TrainConfig
    from qbhkit.evaluation.ablation import Grid
    from qbhkit.pitch.training import MelodyTrainConfig

    values = read_yaml(path)
    kinds: dict[str, Any] = {"melody": MelodyTrainConfig, DISTILLATION_KIND: DistillationConfig}
    kind = Grid if "rows" in values else kinds.get(str(values.get("kind")), TrainConfig)
    return build_config(kind, values, str(path))


def _weights_seeds(folder: Path) -> dict[str, bytes]:
    from qbhkit.embedding.embedder import export_encoder
    from qbhkit.embedding.encoders import ContourEncoder, EncoderConfig
    from qbhkit.embedding.windows import Reading

    small = EncoderConfig(widths=(4, 4), embedding_dim=8, heads=2, compression=4)
    export_encoder(ContourEncoder(small), folder / "w.safetensors", Reading(80), "key")
    return {"w.safetensors": (folder / "w.safetensors").read_bytes()}


def _read_weights(path: Path) -> object:
    from qbhkit.embedding.embedder import ContourEmbedder
    from qbhkit.retrieval.confidence import Calibration

    embedder = ContourEmbedder(str(path))
    Calibration.of(embedder)
    return embedder.embed(np.ones((1, embedder.reading.frames, 2), np.float32))


def _run_seeds(folder: Path) -> dict[str, bytes]:
    from qbhkit.contour import from_pitch
    from qbhkit.embedding.contour_shards import write_shards
    from qbhkit.embedding.rendered_pairs import RenderedHum, write_rendered
    from qbhkit.training_loop import save_checkpoint

    network, optimiser = _small_network()
    save_checkpoint(folder / "checkpoint.pt", {"seed": 0}, network, optimiser, [])
    contour = from_pitch(np.full(30, 60, np.float32))
    write_shards([contour] * 2, folder / "shards")
    one = RenderedHum(np.zeros((30, 8), np.float32), np.zeros((30, 2), np.float32), contour, 0)
    write_rendered(folder / "rendered.safetensors", [one], {"seed": 0})
    names = ["checkpoint.pt", "rendered.safetensors", "shards/manifest.json", "shards/index.npy"]
    return {name.replace("/", "-"): (folder / name).read_bytes() for name in names}


def _small_network() -> Any:
    import torch

    network = torch.nn.Linear(3, 2)
    return network, torch.optim.Adam(network.parameters())


def _read_run(path: Path) -> object:
    from qbhkit.embedding.contour_shards import open_shards
    from qbhkit.embedding.rendered_pairs import read_rendered
    from qbhkit.storage import sha256_file
    from qbhkit.training_loop import load_checkpoint

    if path.suffix == ".pt":
        return load_checkpoint(path, {"seed": 0}, *_small_network())
    if path.suffix == ".safetensors":
        return read_rendered(path)
    copy = path.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(path.parent / "shards", copy)
    name = path.name.split("-")[1]
    shutil.copyfile(path, copy / name)
    if name == "index.npy":
        manifest = json.loads((copy / "manifest.json").read_text())
        manifest["sha256"][name] = sha256_file(path)
        (copy / "manifest.json").write_text(json.dumps(manifest))
    return open_shards(copy)


def _audio_seeds(folder: Path) -> dict[str, bytes]:
    import av
    import soundfile

    rate_hz, files = 8000, {}
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(int(0.4 * rate_hz)) / rate_hz)
    kinds = {"a.wav": "PCM_16", "b.wav": "PCM_U8", "c.wav": "FLOAT", "d.wav": "ULAW",
             "e.flac": None, "f.ogg": None, "g.mp3": None, "h.aiff": "PCM_24"}  # fmt: skip
    for name, subtype in kinds.items():
        soundfile.write(folder / name, np.stack([tone, tone], axis=1), rate_hz, subtype)
        files[name] = (folder / name).read_bytes()
    for name, codec in (("i.m4a", "aac"), ("j.webm", "libopus")):
        with av.open(str(folder / name), "w") as container:
            stream: Any = container.add_stream(codec, rate=48000)
            stream.layout = "mono"
            samples = np.resize(tone, (1, 24000)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, "fltp", "mono")
            frame.sample_rate = 48000
            size = stream.frame_size or 960
            resampler: Any = av.AudioResampler(stream.format, "mono", 48000, size)
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(stream.encode(part))
            container.mux(stream.encode(None))
        files[name] = (folder / name).read_bytes()
    return files


def _read_audio(path: Path) -> object:
    from qbhkit.audio import load, read_tags

    return load(path, longest_s=LONGEST_AUDIO_S), read_tags(path)


def _table_seeds(folder: Path) -> dict[str, bytes]:
    with wave.open(str(folder / "hum.wav"), "wb") as hum:
        hum.setparams((1, 2, 8000, 0, "NONE", ""))
        hum.writeframes(bytes(1600))
    return {
        "pairs.csv": b'hum_path,song_id,start_s,end_s\nhum.wav,s1,0.0,5.5\n"hum.wav",s2,1,7\n',
        "queries.csv": b"path,song_id,singer\nhum.wav,s1,ann\nhum.wav,s2,\n",
        "result.json": b'{"calibration": {"distance": 0.3, "bias": -5, "threshold": 0.34}}',
    }


def _read_table(path: Path) -> object:
    from qbhkit.config import build_config
    from qbhkit.corpora.hum_csv import read_pairs
    from qbhkit.evaluation.evaluate import read_queries
    from qbhkit.retrieval.confidence import Calibration
    from qbhkit.storage import read_json

    if path.suffix == ".csv":
        return (read_pairs if path.name == "pairs.csv" else read_queries)(path)
    values = read_json(path, "measure again")
    found = values.get("calibration") if isinstance(values, dict) else None
    return build_config(Calibration, found, "it") if isinstance(found, dict) else None


def _zip_seeds(folder: Path) -> dict[str, bytes]:
    files = {}
    for name, how in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", how) as archive:
            archive.writestr("corpus/a.txt", b"some text " * 20)
            archive.writestr("corpus/sub/b.bin", bytes(50))
        files[f"{name}.zip"] = content.getvalue()
    return files


def _read_zip(path: Path) -> object:
    from qbhkit.corpora.fetch import unpack

    before = set(path.parent.parent.iterdir())
    unpack(path, path.parent / "unpacked")
    assert set(path.parent.parent.iterdir()) == before, "something was written outside the folder"
    return before


_GUIDED = ("abc", "f0", "original", "config", "tables")
TARGETS = {
    name: Target(seeds, read, _WORDS[name], name in _GUIDED)
    for name, seeds, read in (
        ("abc", _abc_seeds, _read_abc), ("midi", _midi_seeds, _read_midi),
        ("f0", _f0_seeds, _read_f0), ("labels", _label_seeds, _read_labels),
        ("corpora", _corpus_seeds, _read_corpora), ("keras", _keras_seeds, _read_keras),
        ("torch", _torch_seeds, _read_torch), ("original", _original_seeds, _read_original),
        ("catalogue", _catalogue_seeds, _read_catalogue), ("config", _config_seeds, _read_config),
        ("weights", _weights_seeds, _read_weights), ("runs", _run_seeds, _read_run),
        ("audio", _audio_seeds, _read_audio), ("tables", _table_seeds, _read_table),
        ("zip", _zip_seeds, _read_zip),
    )
}  # fmt: skip
