"""Feed damaged files to one reader of the kit, in this process, which may die of it.

``python -m qbhkit.evaluation.benchmarks.fuzzing TARGET COUNT SEED FOLDER``: good files are damaged
(bytes changed, stretches cut, doubled or swapped, the format's own words put in wrong places). A
reader may refuse a file in one sentence (``QbhError``, or the system's own ``OSError``). Everything
else is a find: another exception, more than 1 GB of memory, more than 5 s of the processor (a busy
machine is no find), a minute of waiting, a crash; ``input`` in the folder is then what killed it.
"""

import argparse
import faulthandler
import gc
import json
import random
import resource
import signal
from collections.abc import Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks.fuzz_targets import TARGETS, Target

LONGEST_S = 5.0
PATIENCE_S = 60.0
MOST_BYTES = 1 << 30
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1)
_EDITS = ("byte", "word", "number", "cut", "double", "swap", "end")
_MOST_EDITS = 5
_ENCODED = tuple(
    number.to_bytes(size, order) for number in _NUMBERS for size in (1, 2, 4, 8)
    for order in ("little", "big") if number < 1 << 8 * size
)  # fmt: skip
Edit = tuple[str, float, float, Any]  # kind; place and length as shares of what there is; value


def drawn(chance: random.Random, words: Sequence[bytes]) -> Edit:
    kind = chance.choice(_EDITS)
    value: Any = chance.randrange(256)
    if kind in ("word", "number"):
        value = chance.choice(words if kind == "word" else _ENCODED)
    return kind, chance.random(), chance.random(), value


def edited(data: bytes, other: bytes, edits: Sequence[Edit]) -> bytes:
    """Damage a file, with stretches of another one."""
    for kind, where, share, value in edits:
        at = int(where * (len(data) + 1))
        end = at + int(share**3 * (len(data) - at))  # mostly short stretches
        if kind == "byte" and at < len(data):
            data = data[:at] + bytes([value]) + data[at + 1 :]
        elif kind in ("word", "number"):
            keep = at if share < 0.5 else at + len(value)  # put in, or put over
            data = data[:at] + value + data[keep:]
        elif kind == "cut":
            data = data[:at] + data[end:]
        elif kind == "double":
            times = min(1 + value % 64, 1 + (1 << 16) // max(1, end - at))
            data = data[:at] + data[at:end] * times + data[end:]
        elif kind == "swap":
            from_at = int(where * len(other))
            data = data[:at] + other[from_at : from_at + end - at] + data[end:]
        elif kind == "end":
            data = data[:at]
    return data


class Attack:
    """Feed one target from an empty folder, and count what it is given and what it refuses."""

    def __init__(self, target: Target, folder: Path) -> None:
        self.target, self.last, self.place = target, folder / "input", folder / "files"
        self.place.mkdir(parents=True)
        self.seeds = target.seeds(self.place)
        for name in self.seeds:
            (self.place / name).write_bytes(self.seeds[name])
        faulthandler.register(signal.SIGPROF, chain=True)  # tell where it was, and die
        self.inputs, self.refused, self.slowest_s = 0, 0, 0.0
        for name in self.seeds:  # loads what is loaded lazily before anything is counted
            self.feed(name, self.seeds[name], PATIENCE_S)
        soft = virtual_bytes() + MOST_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (soft, soft))
        self.inputs, self.refused, self.slowest_s = 0, 0, 0.0

    def feed(self, name: str, content: bytes, longest_s: float) -> None:
        """Give the reader one file; what it may not raise passes through."""
        self.last.write_bytes(content)
        path = self.place / name
        path.write_bytes(content)
        began_s = _processor_s()
        signal.setitimer(signal.ITIMER_PROF, longest_s)
        faulthandler.dump_traceback_later(max(PATIENCE_S, 10 * longest_s), exit=True)
        try:
            self.target.read(path)
        except (QbhError, OSError) as error:
            self.refused += 1
            if isinstance(error, QbhError) and "\n" in str(error):
                raise AssertionError(f"not a sentence: {error}") from None
        finally:
            faulthandler.cancel_dump_traceback_later()
            signal.setitimer(signal.ITIMER_PROF, 0)
            path.write_bytes(self.seeds[name])
        taken_s = _processor_s() - began_s  # with the programs that it called
        assert taken_s < longest_s, f"it took {taken_s:.1f} s"
        self.inputs += 1
        self.slowest_s = max(self.slowest_s, taken_s)

    def by_chance(self, count: int, seed: int) -> None:
        """Damage files at random."""
        chance, names, words = random.Random(seed), sorted(self.seeds), self.target.vocabulary()
        for _ in range(count):
            name, other = chance.choice(names), chance.choice(names)
            edits = [drawn(chance, words) for _ in range(chance.randint(1, _MOST_EDITS))]
            self.feed(name, edited(self.seeds[name], self.seeds[other], edits), LONGEST_S)

    def guided(self, count: int, seed: int) -> None:
        """Let atheris look for inputs that reach new lines; ends the process."""
        import atheris

        names, corpus = sorted(self.seeds), self.place.parent / "corpus"
        corpus.mkdir()
        for number, name in enumerate(names):
            (corpus / name).write_bytes(bytes([number]) + self.seeds[name])
        words = self.place.parent / "words"
        quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in self.target.vocabulary())
        words.write_text("".join(f'"{word}"\n' for word in quoted))

        def attack(data: bytes) -> None:
            if data:
                self.feed(names[data[0] % len(names)], data[1:], LONGEST_S)
            if self.inputs == count:
                self.tell()

        for thing in gc.get_objects():  # not torch's: instrumenting that takes hours
            if isinstance(thing, FunctionType) and str(thing.__module__).startswith("qbhkit"):
                atheris.instrument_func(thing)
        options = [f"-runs={count + 1}", f"-seed={seed}", f"-dict={words}", "-max_len=8192"]
        options += ["-verbosity=0", "-print_final_stats=0", str(corpus)]
        atheris.Setup(["attack", *options], attack)
        atheris.Fuzz()

    def tell(self) -> None:
        """Print what was done as one JSON line."""
        peak_mb = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        found: dict[str, float] = {"inputs": self.inputs, "refused": self.refused}
        found |= {"slowest_s": round(self.slowest_s, 3), "peak_mb": peak_mb}
        print(json.dumps(found), flush=True)


def _processor_s() -> float:
    """Return what this process, and those that it has waited for, took of the processor."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(sum(resource.getrusage(kind)[:2]) for kind in kinds)


def virtual_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("count", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--guided", action="store_true", help="by atheris")
    options = parser.parse_args()
    attack = Attack(TARGETS[options.target], options.folder)
    (attack.guided if options.guided else attack.by_chance)(options.count, options.seed)
    attack.tell()


if __name__ == "__main__":
    main()
