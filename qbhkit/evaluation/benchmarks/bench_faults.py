"""What may break under the kit while it works: ``qbhkit bench faults``.

Kills (SIGKILL at random moments, each time going on from what is there) of training, building and
adding, fetching and weight conversion; and a disk that is full, really (a tmpfs of a few hundred
KB, which takes root). In the end each has to be equal to what is made in one go, and whatever can
be read in between has to be whole. The counts go into data/results/robustness.json.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from qbhkit.catalogue.edit import verify_catalogue
from qbhkit.contour import F0Track, midi_to_hz
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.evaluation.benchmarks.common import bytes_in, save_entry
from qbhkit.f0_csv import write_f0_csv
from qbhkit.storage import read_json
from qbhkit.weights import load_weights

WORKS = ("build", "add", "train", "fetch", "convert")
A_ROW = 10  # kills before a work is let end
_CLI = (
    "import sys; from qbhkit.catalogue import build; build._SONGS_PER_SHARD = 8; "
    "from qbhkit.cli import main; sys.exit(main(sys.argv[1:]))"
)
_FETCH = (
    "import sys; from dataclasses import replace; from qbhkit import corpora; "
    "from qbhkit.cli import main; "
    "url, sha256, out = sys.argv[1:]; info = corpora.CORPORA['mir-qbsh']; "
    "corpora.CORPORA['mir-qbsh'] = replace(info, url=url, sha256=sha256); "
    "sys.exit(main(['data', 'fetch', 'mir-qbsh', '--data', out]))"
)


@dataclass(frozen=True)
class Work:
    """A command that is killed, and how its result is judged.

    Args:
        command: for the folder to work in; goes on from what is there.
        made: name to content of what it has made, of whole files only.
        check: reads whatever is there as a user would; raises if something is half-written.
        begin: what the folder holds before; nothing if None.
    """

    command: Callable[[Path], list[str]]
    made: Callable[[Path], dict[str, Any]]
    check: Callable[[Path], object]
    begin: Path | None = None


def qbhkit(*arguments: object) -> list[str]:
    """Return a command line of the kit, with small shards so that there is something to kill."""
    return [sys.executable, "-c", _CLI, *map(str, arguments)]


def started(command: list[str]) -> subprocess.Popen[bytes]:
    """Start a command without its output."""
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONHASHSEED": "0"},
    )


def finish(command: list[str]) -> float:
    """Let a command end well; return the seconds it took."""
    began = time.perf_counter()
    with started(command) as child:
        _, said = child.communicate()
    assert child.returncode == 0, said.decode()
    return time.perf_counter() - began


def kill_often(work: Work, folder: Path, kills: int, seed: int) -> int:
    """Kill a work at random moments, in rows of ten between which it is let end; return how many.

    Raises:
        AssertionError: if an end differs from that of an undisturbed run, or a reader is given
            something half-written.
    """
    rng = np.random.default_rng(seed)
    whole = folder / "whole"
    reset(work, whole)
    takes_s = finish(work.command(whole))
    wanted = work.made(whole)
    assert wanted
    done = 0
    while done < kills:
        killed = folder / "killed"
        reset(work, killed)
        for _ in range(min(A_ROW, kills - done)):
            with started(work.command(killed)) as child:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(rng.uniform(0.2, 1.0) * takes_s)
                child.kill()
            if child.returncode != -signal.SIGKILL:  # it was done before
                work.check(killed)
                reset(work, killed)
                continue
            done += 1
            work.check(killed)
        finish(work.command(killed))
        found = work.made(killed)
        assert found == wanted, (
            f"differs in {[key for key in wanted if found.get(key) != wanted[key]]}"
        )
    return done


def reset(work: Work, folder: Path) -> None:
    """Put the folder back to how the work found it."""
    shutil.rmtree(folder, ignore_errors=True)
    if work.begin is not None:
        shutil.copytree(work.begin, folder)
    else:
        folder.mkdir(parents=True)


def tunes(folder: Path, count: int, begin: int = 0) -> Path:
    """Write public-domain tunes as f0 CSV files."""
    folder.mkdir(parents=True)
    for song in islice(songs_of(music21_collection("airdsAirs")), begin, begin + count):
        assert song.notes is not None
        pitch = np.repeat(midi_to_hz(song.notes[:, 2]), 20)
        track = F0Track(pitch, np.ones(len(pitch), np.float32), 0.01)
        write_f0_csv(track, folder / f"{song.id}.f0.csv")
    return folder


def catalogue_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a finished catalogue."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".partial-")
    }


def check_catalogue(folder: Path) -> None:
    """A catalogue is there and verifies, or it says that it is unfinished."""
    if (folder / "manifest.json").is_file():
        assert not verify_catalogue(folder).problems


def building_work(sources: Path) -> Work:
    """Return a build from nothing."""
    return Work(
        lambda folder: qbhkit("catalogue", "build", sources, "--out", folder),
        catalogue_files,
        check_catalogue,
    )


def adding_work(sources: Path, before: Path) -> Work:
    """Return an addition to a catalogue."""
    return Work(
        lambda folder: qbhkit("catalogue", "add", sources, "--catalogue", folder),
        catalogue_files,
        check_catalogue,
        before,
    )


def training_work(folder: Path) -> Work:
    """Return a training of six short epochs."""
    config = folder / "short.yaml"
    config.write_text(
        "kind: embedding\ncorpora: [miscFolk]\nepochs: 6\nsteps_per_epoch: 4\nbatch: 32\n"
        "negatives: 4\nencoder:\n  widths: [16, 32]\n  convolutions: 1\n"
    )

    def command(folder: Path) -> list[str]:
        resume = ["--resume"] if (folder / "checkpoint.pt").is_file() else []
        return qbhkit("train", config, "--out", folder, "--log", folder / "log.json", *resume)

    def made(folder: Path) -> dict[str, Any]:
        curve = read_json(folder / "log.json", "train again")["curve"]
        weights = (folder / "short.safetensors").read_bytes()
        return {"weights": weights, "losses": [line["loss"] for line in curve]}

    def check(folder: Path) -> None:
        if (folder / "log.json").is_file():
            read_json(folder / "log.json", "train again")
        if (folder / "short.safetensors").is_file():
            load_weights(str(folder / "short.safetensors"))

    return Work(command, made, check)


@contextlib.contextmanager
def fetching_work(folder: Path) -> Iterator[Work]:
    """Return a download, from a slow server on this machine, and its unpacking."""
    archive = folder / "served.zip"
    with zipfile.ZipFile(archive, "w") as stored:
        for number in range(400):
            stored.writestr(f"corpus/{number}.bin", np.random.default_rng(number).bytes(5000))
    content = archive.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            begin = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            if begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                for at in range(begin, len(content), 1 << 15):
                    self.wfile.write(content[at : at + (1 << 15)])
                    time.sleep(0.01)

        def log_message(self, *_arguments: object) -> None:
            pass

    def made(out: Path) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (out / "mir-qbsh").iterdir()}

    def check(out: Path) -> None:
        if (out / "mir-qbsh").is_dir():
            assert len(made(out)) == 400

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/corpus.zip"
        digest = hashlib.sha256(content).hexdigest()
        yield Work(lambda out: [sys.executable, "-c", _FETCH, url, digest, str(out)], made, check)
        server.shutdown()
        thread.join()


def converting_work(folder: Path) -> Work:
    """Return a conversion of Keras weights of the published shapes."""
    import h5py

    from qbhkit.pitch.keras_weights import _expected

    rng = np.random.default_rng(0)
    np.save(folder / "mean.npy", np.zeros((31, 513), np.float32))
    np.save(folder / "std.npy", np.ones((31, 513), np.float32))
    with h5py.File(folder / "weights.hdf5", "w") as stored:
        layers = list(_expected())
        stored.attrs["layer_names"] = [layer.name.replace(".", "_").encode() for layer in layers]
        for layer in layers:
            group = stored.create_group(layer.name.replace(".", "_"))
            group.attrs["weight_names"] = [f"w{k}".encode() for k in range(len(layer.shapes))]
            for number, shape in enumerate(layer.shapes):
                group[f"w{number}"] = rng.uniform(0.1, 1, shape).astype(np.float32)
    given = [folder / name for name in ("weights.hdf5", "mean.npy", "std.npy")]

    def check(out: Path) -> None:
        if (out / "crnn.safetensors").is_file():
            load_weights(str(out / "crnn.safetensors"))

    return Work(
        lambda out: qbhkit("weights", "convert", *given, "--out", out),
        lambda out: {"weights": (out / "crnn.safetensors").read_bytes()},
        check,
    )


@contextlib.contextmanager
def works(folder: Path, songs: int = 160) -> Iterator[dict[str, Work]]:
    """Give all works by name, with what they work on in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    sources, more = tunes(folder / "songs", songs), tunes(folder / "more", songs, songs)
    before = folder / "before"
    finish(qbhkit("catalogue", "build", sources, "--out", before))
    with fetching_work(folder) as fetching:
        yield {
            "build": building_work(sources),
            "add": adding_work(more, before),
            "train": training_work(folder),
            "fetch": fetching,
            "convert": converting_work(folder),
        }


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[Callable[[str], None]]:
    """Mount a disk, in memory; takes root. Give what mounts it anew with other options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(*options: str) -> None:
        subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True)

    mount()
    try:
        yield lambda options: mount("-o", f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(work: Work, folder: Path) -> str:
    """Run a work on a disk with half the room it needs, then on the same disk with enough.

    Returns:
        The sentence of the first run.

    Raises:
        AssertionError: if it is no sentence, or the end differs from that of an undisturbed run.
    """
    whole = folder / "roomy"
    reset(work, whole)
    finish(work.command(whole))
    with own_disk(folder / "disk") as remount:
        place = folder / "disk" / "work"
        reset(work, place)
        before = bytes_in(place)
        remount(f"size={(before + bytes_in(whole)) // 2 >> 10}k")
        with started(work.command(place)) as child:
            _, said = child.communicate()
        text = said.decode().strip().splitlines()[-1]
        assert (child.returncode, "Traceback" in said.decode()) == (2, False), said.decode()
        work.check(place)
        remount("size=1g")
        finish(work.command(place))
        assert work.made(place) == work.made(whole)
    return text


def main() -> None:
    """Kill each work, and fill the disk under it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=50, help="of each work")
    parser.add_argument("--only", nargs="+", choices=WORKS, default=WORKS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, works(Path(name) / "given") as found:
        for key in options.only:
            folder = Path(name) / key
            entry: dict[str, Any] = {"kills": kill_often(found[key], folder, options.kills, seed=7)}
            print(key, entry["kills"], "kills", flush=True)
            if os.geteuid() == 0:
                sentence = fill_disk(found[key], folder)
                entry["full_disk"] = sentence.replace(str(folder / "disk" / "work"), "DISK")
                print(key, "full disk:", sentence, flush=True)
            save_entry("robustness", "faults", "works", key, entry)
