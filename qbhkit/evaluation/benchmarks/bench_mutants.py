"""Would the tests notice a wrong sign? Mutants of all rooms: ``qbhkit bench mutants``.

A mutant is the kit with one operator, number or keyword changed in one place. A sample of them,
drawn by a seed over all modules but the benchmarks, meets the tests of its room, those of its own
module first, until one fails. They live in copies of the checkout in the cache, two at a time. A
run that was stopped goes on with the same copies; ``--new`` takes the checkout as it is now, and
``--again`` only tests the survivors against it. ``survivors.yaml`` says why a mutant that no test
fails on may live; one that it does not name asks for a test. Left out is what no test could see:
annotations, decorators, error texts.
"""

import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import accumulate, islice, pairwise
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

from tqdm import tqdm

from qbhkit.config import read_yaml
from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks import common
from qbhkit.storage import cache_dir, read_json, write_json

REASONS = Path(__file__).with_name("survivors.yaml")
COPIED = {"qbhkit", "tests", "data", "notebooks", "pyproject.toml", "README.md", "CONTRIBUTING.md"}
IGNORED = shutil.ignore_patterns("__pycache__", ".*", "cache", "browser")
NOT_ASKED = {  # they look at texts, at everything, or at benchmarks
    "test_house.py", "test_tours.py", "test_results.py", "test_docs.py", "test_nbval.py",
    "test_notebooks.py", "test_contributing.py", "test_benchmarks.py", "test_faults.py",
    "test_fuzz.py", "test_melody_sets.py", "test_mutants.py", "test_reproduce.py",
    "test_real_songs.py", "test_degraded_hums.py",
}  # fmt: skip
HIDDEN = ("annotation", "returns", "decorator_list")
WORKERS = 2
# An operator, and what becomes of it: something that takes the same operands.
SWAPS: dict[str, tuple[str, ...]] = {
    "Add": ("+", "-"), "Sub": ("-", "+"), "Mult": ("*", "/"), "Div": ("/", "*"),
    "FloorDiv": ("//", "*"), "Mod": ("%", "*"), "Pow": ("**", "*"),
    "BitAnd": ("&", "|"), "BitOr": ("|", "&"), "BitXor": ("^", "|"),
    "Eq": ("==", "!="), "NotEq": ("!=", "=="), "Lt": ("<", "<=", ">"), "LtE": ("<=", "<", ">"),
    "Gt": (">", ">=", "<"), "GtE": (">=", ">", "<"), "Is": ("is", "is not"),
    "IsNot": ("is not", "is"), "In": ("in", "not in"), "NotIn": ("not in", "in"),
    "And": ("and", "or"), "Or": ("or", "and"), "USub": ("-", ""), "Invert": ("~", ""),
    "Not": ("not", ""),
}  # fmt: skip


class Mutant(NamedTuple):
    """A file with one change."""

    path: str  # from the root of the repository
    line: int
    change: str  # the line before and after
    source: str  # of the whole file

    @property
    def key(self) -> str:
        """Name it for the state that is kept."""
        return f"{self.path}:{self.line} {self.change}"


def visible(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and what lies in it, but for what no test could see."""
    yield node
    for name, value in ast.iter_fields(node):
        for inner in value if isinstance(value, list) else [value]:
            seen = isinstance(inner, ast.AST) and not isinstance(inner, ast.Raise | ast.JoinedStr)
            if seen and name not in HIDDEN:
                yield from visible(inner)


def edits(
    node: ast.AST, content: bytes, begin: Callable[[Any], int], end: Callable[[Any], int]
) -> Iterator[tuple[int, int, str]]:
    """Yield the changes that can be made at a node: from where to where, and what stands there."""
    operators: list[tuple[int, Any, Any]] = []  # where it may stand, what, before what
    match node:
        case (
            ast.BinOp(left=one, op=op, right=other) | ast.AugAssign(target=one, op=op, value=other)
        ):
            if not (isinstance(op, ast.BitOr) and ast.unparse(other)[0].isupper()):  # a type
                operators = [(end(one), op, other)]
        case ast.BoolOp(op=op, values=values):
            operators = [(end(one), op, other) for one, other in pairwise(values)]
        case ast.Compare(left=left, ops=ops, comparators=sides):
            operators = list(zip(map(end, (left, *sides)), ops, sides, strict=False))
        case ast.UnaryOp(op=op, operand=operand):
            operators = [(begin(node), op, operand)]
        case ast.Constant(value=bool(value)):
            yield begin(node), end(node), repr(not value)
        case ast.Constant(value=int() | float() as value):
            yield from ((begin(node), end(node), repr(value + step)) for step in (-1, 1))
        case ast.Break() | ast.Continue():
            yield begin(node), end(node), "continue" if isinstance(node, ast.Break) else "break"
    for at, what, before in operators:
        old, *new = SWAPS.get(type(what).__name__, ("",))
        between = content[at : begin(before)].decode()
        yield from ((at, begin(before), between.replace(old, word, 1)) for word in new)


def places(source: str) -> Iterator[tuple[int, int, str]]:
    content = source.encode()
    starts = [*accumulate(map(len, content.splitlines(keepends=True)), initial=0)]

    def begin(node: Any) -> int:
        return int(starts[node.lineno - 1] + node.col_offset)

    def end(node: Any) -> int:
        return int(starts[node.end_lineno - 1] + node.end_col_offset)

    for node in visible(ast.parse(source)):
        yield from edits(node, content, begin, end)


def mutant_of(path: str, source: str, place: tuple[int, int, str]) -> Mutant | None:
    """Make a change; None if that is no Python."""
    first, last, text = place
    content = source.encode()
    mutated = (content[:first] + text.encode() + content[last:]).decode()
    try:
        ast.parse(mutated)
    except SyntaxError:
        return None
    lines = enumerate(zip(source.splitlines(), mutated.splitlines(), strict=False), 1)
    number, (before, after) = next(found for found in lines if found[1][0] != found[1][1])
    return Mutant(path, number, f"{before.strip()} -> {after.strip()}", mutated)


def sample(root: Path, count: int, seed: int) -> list[Mutant]:
    """Draw mutants of all modules of a checkout but the benchmarks."""
    files = [path for path in (root / "qbhkit").rglob("*.py") if "benchmarks" not in path.parts]
    sources = {str(path.relative_to(root)): path.read_text("utf-8") for path in sorted(files)}
    lots = [(path, place) for path, source in sources.items() for place in places(source)]
    print(f"{count} of {len(lots)} mutants, seed {seed}", flush=True)
    random.Random(seed).shuffle(lots)
    made = (mutant_of(path, sources[path], place) for path, place in lots)
    return sorted(islice(filter(None, made), count))


def tests_of(root: Path, path: str) -> list[str]:
    """Return the test files that a mutant of a file meets, those of its module first."""
    names = Path(path).with_suffix("").parts
    names = names[:-1] if names[-1] == "__init__" else names
    own, tests = f"test_{names[-1]}.py", root / "tests"
    room = names[1] if (root / "qbhkit" / names[1 % len(names)]).is_dir() else ""
    found = []
    for file in tests.glob(f"{room}/**/test_*.py" if room else "test_*.py"):
        uses = ".".join(names) in (text := file.read_text("utf-8"))
        if file.name not in NOT_ASKED and (room or uses):
            found.append((file.name != own, not uses, len(text), str(file.relative_to(root))))
    return [name for *_, name in sorted(found)]


def outcome(tree: Path, tests: list[str], limit_s: float) -> int:
    """Return pytest's exit code: 0 where all tests pass, -1 where they take too long."""
    place = tree.parent / f"{tree.name}-made"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    command = [sys.executable, "-m", "pytest", "-x", "-q", *tests]
    environment = os.environ | {
        "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "QBHKIT_DATA": str(place / "data"),
        "QBHKIT_CACHE": str(place / "cache"),
    }  # fmt: skip
    command += ["-p", "no:cacheprovider", f"--basetemp={place / 'tmp'}"]
    with open(place / "output.txt", "w", encoding="utf-8") as output:
        how: Any = {"stdout": output, "stderr": output, "cwd": tree, "env": environment}
        child = subprocess.Popen(command, start_new_session=True, **how)
    try:
        return child.wait(limit_s)
    except subprocess.TimeoutExpired:
        return -1
    finally:
        with suppress(ProcessLookupError):  # with what it has started
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


class Run:
    """The copies of a checkout, and what has been found with them: again only what was killed."""

    def __init__(self, folder: Path, root: Path, new: bool = False, again: bool = False) -> None:
        self.tree, self.path, self.lock = folder / "tree", folder / "state.json", Lock()
        self.state: dict[str, dict[str, Any]] = {"limits_s": {}, "killed": {}}
        if self.path.is_file() and not new:
            self.state = read_json(self.path, "add --new")
        if again:
            killed = {key: True for key, dead in self.state["killed"].items() if dead}
            self.state = {"limits_s": {}, "killed": killed}
        if new or again or not self.tree.is_dir():
            shutil.rmtree(folder, ignore_errors=True)

            def left_out(place: str, names: list[str]) -> set[str]:
                others = set(names) - COPIED if Path(place) == root else set()
                return others | IGNORED(place, names)

            shutil.copytree(root, self.tree, ignore=left_out)
        self.workers: SimpleQueue[Path] = SimpleQueue()
        for number in range(WORKERS):
            worker = folder / f"worker-{number}"
            shutil.rmtree(worker, ignore_errors=True)
            shutil.copytree(self.tree, worker)
            self.workers.put(worker)

    def meet(self, mutant: Mutant) -> None:
        """Let a mutant meet its tests, unless it is known whether one of them fails."""
        if (key := mutant.key) in self.state["killed"]:
            return
        worker, tests = self.workers.get(), tests_of(self.tree, mutant.path)
        try:
            limit_s, file = self.limit_s(worker, tests), worker / mutant.path
            file.write_text(mutant.source, "utf-8")
            code = outcome(worker, tests, limit_s)
            shutil.copy2(self.tree / mutant.path, file)  # with its time: compiled anew
        finally:
            self.workers.put(worker)
        with self.lock:
            self.state["killed"][key] = code != 0
            write_json(self.path, self.state)

    def limit_s(self, worker: Path, tests: list[str]) -> float:
        """Return how long tests may take: half a minute, and three times as long as unchanged."""
        key = " ".join(sorted(tests))
        if key not in self.state["limits_s"]:
            began = time.perf_counter()
            if outcome(worker, tests, 1800) != 0:
                said = worker.parent / f"{worker.name}-made" / "output.txt"
                raise QbhError(f"Tests fail without any change ({said}): {' '.join(tests)}.")
            self.state["limits_s"][key] = 30 + 3 * (time.perf_counter() - began)
        return float(self.state["limits_s"][key])


def main() -> int:
    parser = common.arguments(__doc__, mutants=300, seed=7)
    parser.add_argument("--new", action="store_true", help="take the checkout as it is now")
    parser.add_argument("--again", action="store_true", help="only the survivors of the last run")
    options = common.parse(parser)
    common.need_checkout("mutants")
    run = Run(cache_dir() / "mutants", common.ROOT, options.new, options.again)
    drawn = sample(run.tree, options.mutants, options.seed)
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            list(tqdm(pool.map(run.meet, drawn), total=len(drawn), unit="mutant"))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    reasons, unexplained = read_yaml(REASONS), 0
    found: dict[str, dict[str, Any]] = {}
    for mutant in drawn:
        module = mutant.path.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        entry = found.setdefault(module, {"mutants": 0, "killed": 0, "survivors": []})
        killed = run.state["killed"][mutant.key]
        entry["mutants"] += 1
        entry["killed"] += killed
        if not killed:
            reason = reasons.get(module, {}).get(mutant.change)
            unexplained += reason is None
            lived = {"line": mutant.line, "change": mutant.change, "reason": reason}
            entry["survivors"].append(lived)
            print(f"{module}:{mutant.line} {mutant.change}\n    {reason}", flush=True)
    total, killed = (sum(entry[key] for entry in found.values()) for key in ("mutants", "killed"))
    print(f"{killed} of {total} killed; {unexplained} of the others unexplained")
    result = {"seed": options.seed, "mutants": total, "killed": killed, "modules": found}
    common.save(options, "robustness", result, "mutants")
    return min(unexplained, 1)
