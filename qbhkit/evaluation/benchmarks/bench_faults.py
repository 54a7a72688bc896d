"""What may break under the kit while it works: ``qbhkit bench faults``.

Kills (SIGKILL at random moments, each time going on from what is there) of training, building and
adding, fetching and weight conversion; and a disk that is full, really (a tmpfs of a few hundred
KB, which takes root). In the end each has to be equal to what is made in one go, and whatever can
be read in between has to be whole.
"""

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
from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.benchmarks.fuzz_targets import write_keras
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
_TRAIN = (
    "kind: embedding\ncorpora: [miscFolk]\nepochs: 6\nsteps_per_epoch: 4\nbatch: 32\n"
    "negatives: 4\nencoder:\n  widths: [16, 32]\n  convolutions: 1\n"
)


@dataclass(frozen=True)
class Work:
    """A command that is killed, and how its result is judged."""

    command: Callable[[Path], list[str]]  # for the folder to work in; goes on from what is there
    check: Callable[[Path], object]  # reads as a user would; raises if something is half-written
    made: str = "**/*"  # the files that count in the end, if they are finished
    begin: Path | None = None  # what the folder holds before

    def result(self, folder: Path) -> dict[str, bytes]:
        """Return the files that it has made."""
        return {
            str(file.relative_to(folder)): file.read_bytes()
            for file in folder.glob(self.made)
            if file.is_file() and not file.name.startswith(".partial-")
        }

    def reset(self, folder: Path) -> None:
        """Put the folder back to how the work found it."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.begin is None:
            folder.mkdir(parents=True)
        else:
            shutil.copytree(self.begin, folder)


def qbhkit(*arguments: object) -> list[str]:
    """Return a command line of the kit, with small shards so that there is something to kill."""
    return [sys.executable, "-c", _CLI, *map(str, arguments)]


def started(command: list[str]) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    out, err = subprocess.DEVNULL, subprocess.PIPE
    return subprocess.Popen(command, stdout=out, stderr=err, env=environment)


def finish(command: list[str]) -> None:
    with started(command) as child:
        _, said = child.communicate()
    assert child.returncode == 0, said.decode()


def kill_often(work: Work, folder: Path, kills: int, seed: int) -> int:
    """Kill a work at random moments, in rows of ten between which it is let end; return how many.

    An AssertionError says that an end differs from that of an undisturbed run.
    """
    rng = np.random.default_rng(seed)
    whole, killed, done = folder / "whole", folder / "killed", 0
    work.reset(whole)
    takes_s = common.timed(lambda: finish(work.command(whole)))
    wanted = work.result(whole)
    assert wanted
    while done < kills:
        work.reset(killed)
        for _ in range(min(A_ROW, kills - done)):
            with started(work.command(killed)) as child:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(rng.uniform(0.2, 1.0) * takes_s)
                child.kill()
            work.check(killed)
            if child.returncode == -signal.SIGKILL:
                done += 1
            else:  # it was done before
                work.reset(killed)
        finish(work.command(killed))
        found = work.result(killed)
        differing = [key for key in wanted if found.get(key) != wanted[key]]
        assert found == wanted, f"differs in {differing}"
    return done


def tunes(folder: Path, count: int, begin: int = 0) -> Path:
    folder.mkdir(parents=True)
    for song in islice(songs_of(music21_collection("airdsAirs")), begin, begin + count):
        assert song.notes is not None
        pitch = np.repeat(midi_to_hz(song.notes[:, 2]), 20)
        track = F0Track(pitch, np.ones(len(pitch), np.float32), 0.01)
        write_f0_csv(track, folder / f"{song.id}.f0.csv")
    return folder


def check_catalogue(folder: Path) -> None:
    if (folder / "manifest.json").is_file():
        assert not verify_catalogue(folder).problems


def check_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors"):
        load_weights(str(path))
    for path in folder.glob("log.json"):
        read_json(path, "train again")


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

    def check(out: Path) -> None:
        if (out / "mir-qbsh").is_dir():
            assert len(list((out / "mir-qbsh").iterdir())) == 400

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/corpus.zip"
        command = [sys.executable, "-c", _FETCH, url, hashlib.sha256(content).hexdigest()]
        yield Work(lambda out: [*command, str(out)], check, "mir-qbsh/*")
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def works(folder: Path, songs: int = 160) -> Iterator[dict[str, Work]]:
    """Give all works by name, with what they work on in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    sources, more = tunes(folder / "songs", songs), tunes(folder / "more", songs, songs)
    before, config = folder / "before", folder / "short.yaml"
    finish(qbhkit("catalogue", "build", sources, "--out", before))
    config.write_text(_TRAIN)
    rng = np.random.default_rng(0)
    keras = write_keras(folder, lambda shape: rng.uniform(0.1, 1, shape).astype(np.float32))

    def train(out: Path) -> list[str]:
        resume = ["--resume"] if (out / "checkpoint.pt").is_file() else []
        return qbhkit("train", config, "--out", out, "--log", out / "log.json", *resume)

    def build(out: Path) -> list[str]:
        return qbhkit("catalogue", "build", sources, "--out", out)

    def add(out: Path) -> list[str]:
        return qbhkit("catalogue", "add", more, "--catalogue", out)

    def convert(out: Path) -> list[str]:
        return qbhkit("weights", "convert", *keras, "--out", out)

    with fetching_work(folder) as fetching:
        yield {
            "build": Work(build, check_catalogue),
            "add": Work(add, check_catalogue, begin=before),
            "train": Work(train, check_weights, "short.safetensors"),
            "fetch": fetching,
            "convert": Work(convert, check_weights, "*.safetensors"),
        }


@contextlib.contextmanager
def own_disk(folder: Path) -> Iterator[Callable[[str], None]]:
    """Mount a disk, in memory; takes root. Give what mounts it anew with other options."""
    folder.mkdir(parents=True, exist_ok=True)

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        subprocess.run(command, check=True)

    mount("rw")
    try:
        yield lambda options: mount(f"remount,{options}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_disk(work: Work, folder: Path) -> str:
    """Run a work on a disk with half the room it needs, then with enough; return what it said."""
    whole = folder / "roomy"
    work.reset(whole)
    finish(work.command(whole))
    with own_disk(folder / "disk") as remount:
        place = folder / "disk" / "work"
        work.reset(place)
        remount(f"size={(common.bytes_in(place) + common.bytes_in(whole)) // 2 >> 10}k")
        with started(work.command(place)) as child:
            said = child.communicate()[1].decode()
        assert (child.returncode, "Traceback" in said) == (2, False), said
        work.check(place)
        remount("size=1g")
        finish(work.command(place))
        assert work.result(place) == work.result(whole)
    return said.strip().splitlines()[-1].replace(str(place), "DISK")


def main() -> None:
    parser = common.arguments(__doc__, kills=50)  # of each work
    parser.add_argument("--only", nargs="+", choices=WORKS, default=WORKS)
    options = common.parse(parser)
    with tempfile.TemporaryDirectory() as name, works(Path(name) / "given") as found:
        for key in options.only:
            folder = Path(name) / key
            entry: dict[str, Any] = {"kills": kill_often(found[key], folder, options.kills, seed=7)}
            if os.geteuid() == 0:
                entry["full_disk"] = fill_disk(found[key], folder)
            print(key, entry, flush=True)
            common.save(options, "robustness", entry, "faults", "works", key)
