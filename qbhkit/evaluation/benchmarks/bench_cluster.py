"""A catalogue of recordings built by one process and by two Dask workers: ``qbhkit bench cluster``.

The recordings are one real song, a band and a voice, that begins a second later in each. Both
rivals go in turn from songs to a manifest, this process with as many threads as torch takes.
Starting the workers and loading their models is counted. All catalogues must be equal.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from qbhkit.audio import Audio, load, write_wav
from qbhkit.catalogue import dask_backend
from qbhkit.catalogue.build import build_catalogue, read_sources
from qbhkit.catalogue.files import read_manifest
from qbhkit.corpora import Song, open_source
from qbhkit.embedding.embedder import ContourEmbedder
from qbhkit.evaluation.benchmarks import common
from qbhkit.pitch.trackers import identity_of
from qbhkit.storage import data_dir

TRACKER = "crnn-lite"
RIVALS = {"one_process": None, "two_workers": 2}


def recordings(folder: Path, count: int, longest_s: float) -> float:
    song = load(data_dir() / "singing" / "songs" / f"{common.RECORDING}.ogg", 16000)
    total_s = 0.0
    for k in range(count):
        samples = song.samples[k * song.rate_hz :][: round(longest_s * song.rate_hz)]
        part = Audio(samples, song.rate_hz)
        write_wav(part, folder / f"take-{k:02}.wav")
        total_s += part.duration_s
    return total_s


def build(songs: list[Song], path: Path, workers: int | None) -> float:
    embedder, began = ContourEmbedder(), time.perf_counter()
    with dask_backend.open_executor(workers) as executor:
        build_catalogue(songs, path, embedder, TRACKER, progress=False, executor=executor)
        return time.perf_counter() - began


def main() -> None:
    options = common.parse(common.arguments(__doc__, recordings=16, longest_s=1000.0, rounds=3))
    taken: dict[str, list[float]] = {name: [] for name in RIVALS}
    manifests = []
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "songs"
        source.mkdir()
        total_s = recordings(source, options.recordings, options.longest_s)
        songs, _ = read_sources(open_source(str(source), Path()))
        for turn in range(options.rounds):
            for name, workers in RIVALS.items():
                path = Path(folder) / f"{name}-{turn}"
                taken[name].append(build(songs, path, workers))
                manifests.append(read_manifest(path))
                print(f"{name}: {taken[name][-1]:.1f} s", flush=True)
    assert all(manifest == manifests[0] for manifest in manifests), "the catalogues differ"
    assert manifests[0].songs == options.recordings
    one, two = (median(seconds) for seconds in taken.values())
    result = {
        "recordings": f"{options.recordings} of {common.RECORDING_TITLE}, each a second later",
        "minutes": round(total_s / 60, 1),
        "tracker": identity_of(TRACKER),
        "threads_of_one_process": torch.get_num_threads(),
        "seconds": {name: round(median(values), 2) for name, values in taken.items()},
        "ratios": {"one_process_over_two_workers": round(one / two, 2)},
        "catalogues_equal": True,
    }
    print({key: result[key] for key in ("seconds", "ratios")})
    common.save(options, "bench_cluster", result)
