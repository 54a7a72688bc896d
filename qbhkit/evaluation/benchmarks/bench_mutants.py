"""Would the tests notice a wrong sign? Mutants of some modules: ``qbhkit bench mutants``.

cosmic-ray (``pip install cosmic-ray``; no part of the kit's set-up) writes the mutants: one
operator, number or keyword changed in one place. A seeded sample of them meets the tests of its
module, with numba's compiler off. Each mutant lives in a fork of this process, so that torch is
loaded once. ``survivors.yaml`` says why a mutant that no test fails on may live; one that it does
not name asks for a test. The counts go into data/results/robustness.json.

Left out is what no test could see: annotations, error texts, numba's decorators.
"""

import argparse
import ast
import gc
import importlib.util
import os
import random
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

os.environ |= {"NUMBA_DISABLE_JIT": "1", "OMP_NUM_THREADS": "1"}  # before numba and torch load
os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"

import numba
import pytest
import yaml
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from tqdm import tqdm

from qbhkit.evaluation.benchmarks.common import RESULTS, ROOT, machine, need_checkout, save_part
from qbhkit.storage import read_json

REASONS = Path(__file__).with_name("survivors.yaml")
MODULES = {
    "qbhkit.contour": "test_contour.py",
    "qbhkit.dtw": "retrieval/test_align.py",
    "qbhkit.embedding.augment": "embedding/test_augment.py",
    "qbhkit.embedding.losses": "embedding/test_losses.py",
    "qbhkit.f0_csv": "test_f0_csv.py",
    "qbhkit.metrics": "test_metrics.py",
    "qbhkit.retrieval.align": "retrieval/test_align.py",
}
EXTERNAL = ("test_the_package_loads_only_when_used",)  # looks at the module in another process
# An operator becomes one that takes the same operands: any test finds what raises a TypeError.
ALIKE = (
    {"Add", "Sub", "Mul", "Div", "FloorDiv", "Mod", "Pow"},
    {"BitOr", "BitAnd", "BitXor"},
    {"Eq", "NotEq", "Lt", "LtE", "Gt", "GtE"},
    {"Is", "IsNot"},
    {"USub", "Delete"},
    {"Invert", "Delete"},
    {"Not", "Delete"},
)


class Mutant(NamedTuple):
    """A module with one change."""

    module: str
    line: int
    change: str  # the line before and after
    source: str  # of the whole module


class Place(NamedTuple):
    """Where a mutant can be made: the n-th place that an operator finds in a statement."""

    module: str
    first: int  # line of the module, where the statement begins
    last: int
    operator: str
    occurrence: int


@dataclass(frozen=True)
class InPlace(MetaPathFinder, Loader):
    """Import a module from the source of a mutant."""

    module: str
    source: str

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        """Return how to import the module, and leave others alone."""
        return importlib.util.spec_from_loader(name, self) if name == self.module else None

    def exec_module(self, module: ModuleType) -> None:
        """Run the mutant's source."""
        exec(compile(self.source, str(path_of(self.module)), "exec"), module.__dict__)


def path_of(module: str) -> Path:
    """Return the file of a module."""
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")


def unseen(source: str) -> list[ast.AST]:
    """Return the parts of a module that are not mutated."""
    parts: list[ast.AST | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            parts += [node.returns, *(d for d in node.decorator_list if "njit" in ast.unparse(d))]
        elif isinstance(node, ast.arg | ast.AnnAssign):
            parts.append(node.annotation)
        elif isinstance(node, ast.Raise):
            parts.append(node)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
            parts += [node.value] if node.col_offset == 0 else []  # the alias of a type
    return [part for part in parts if part is not None]


def places(module: str) -> Iterator[Place]:
    """Find every place where a mutant can be made, statement by statement: they parse quickly."""
    source = path_of(module).read_text("utf-8")
    hidden = [
        # with the @ before a decorator
        ((part.lineno, part.col_offset - 1), (part.end_lineno, part.end_col_offset))  # type: ignore
        for part in unseen(source)
    ]
    for statement in ast.parse(source).body:
        marks = getattr(statement, "decorator_list", [])
        first, last = min(part.lineno for part in (statement, *marks)), statement.end_lineno or 0
        nodes = list(ast_nodes(get_ast(lines_of(source, first, last))))
        for name in operator_names():
            operator, changed = get_operator(name), set(name.split("_")[1:])
            if operator.arguments() or (changed and not any(changed <= kind for kind in ALIKE)):
                continue
            found = [spot for node in nodes for spot in operator().mutation_positions(node)]
            for occurrence, ((line, column), _) in enumerate(found):
                if not any(begin <= (first - 1 + line, column) < end for begin, end in hidden):
                    yield Place(module, first, last, name, occurrence)


def lines_of(source: str, first: int, last: int) -> str:
    """Return some lines of a source, counted from 1."""
    return "".join(source.splitlines(keepends=True)[first - 1 : last])


def mutant_of(place: Place) -> Mutant | None:
    """Make a mutant; None if that is no Python, or the module itself."""
    source = path_of(place.module).read_text("utf-8")
    given = lines_of(source, place.first, place.last)
    changed = mutate_code(given, get_operator(place.operator)(), place.occurrence)
    if changed is None or changed == given:
        return None
    try:
        ast.parse(changed)
    except SyntaxError:
        return None
    pairs = zip(given.splitlines(), changed.splitlines(), strict=False)
    line, (before, after) = next(
        (line, pair) for line, pair in enumerate(pairs, place.first) if len({*pair}) == 2
    )
    lines = source.splitlines(keepends=True)
    lines[place.first - 1 : place.last] = [changed]
    return Mutant(place.module, line, f"{before.strip()} -> {after.strip()}", "".join(lines))


def sample(modules: list[str], count: int, seed: int) -> list[Mutant]:
    """Draw mutants, each different, from all that the modules can have."""
    lots = [place for module in modules for place in places(module)]
    print(f"{count} of {len(lots)} mutants, seed {seed}", flush=True)
    random.Random(seed).shuffle(lots)
    drawn: dict[str, Mutant] = {}
    for place in lots:
        if len(drawn) == count:
            break
        if mutant := mutant_of(place):
            drawn.setdefault(mutant.source, mutant)
    return sorted(drawn.values(), key=lambda mutant: (mutant.module, mutant.line, mutant.change))


class Meeting(NamedTuple):
    """How the tests of a module met a source for it."""

    passed: bool  # all of them, and in time
    used_s: float  # of the processor


def met(module: str, source: str, limit_s: float) -> Meeting:
    """Let the tests of a module meet a source for it, in a fork, for ``limit_s`` of the processor.

    Raises:
        AssertionError: if there are no tests.
    """
    child = os.fork()
    if not child:
        _meet(module, source, limit_s)
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code not in (4, 5), f"pytest finds no tests of {module}"
    return Meeting(code == 0, usage.ru_utime + usage.ru_stime)


def _meet(module: str, source: str, limit_s: float) -> None:
    """In the fork: run the tests and leave with their exit status."""
    code = 70
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 2))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(int(60 * limit_s))  # it waits for something, then
        for number in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
        for name in [name for name in sys.modules if name.split(".")[0] == "qbhkit"]:
            del sys.modules[name]
        sys.meta_path.insert(0, InPlace(module, source))
        options = ["-x", "-q", "--assert=plain", "--noconftest", "-p", "no:cacheprovider"]
        options += [f"--rootdir={ROOT}", "-k", " and ".join(f"not {name}" for name in EXTERNAL)]
        code = int(pytest.main([*options, str(ROOT / "tests" / MODULES[module])]))
    finally:
        os._exit(code)


@cache
def limit_of(module: str) -> float:
    """Return how long the tests of a module may take: four times what they take without change.

    Raises:
        AssertionError: if they fail without change.
    """
    meeting = met(module, path_of(module).read_text("utf-8"), 600)
    assert meeting.passed, f"the tests of {module} fail on the module itself"
    return 5 + 4 * meeting.used_s


def survivors() -> set[tuple[str, str]]:
    """Return module and change of those that no test failed on in the recorded run."""
    recorded = read_json(RESULTS / "robustness.json", "run without --again")["mutants"]["modules"]
    return {
        (module, lived["change"])
        for module, entry in recorded.items()
        for lived in entry["survivors"]
    }


def main() -> int:
    """Test a sample of mutants."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mutants", type=int, default=300)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--module", choices=MODULES, help="of one module; its result is not kept")
    parser.add_argument(
        "--again", action="store_true", help="only the survivors of the last run, after new tests"
    )
    options = parser.parse_args()
    need_checkout("mutants")
    assert numba.config.DISABLE_JIT  # type: ignore[attr-defined]
    modules = [options.module] if options.module else list(MODULES)
    for module in modules:  # for what they import; each fork imports them anew
        importlib.import_module(module)
    gc.freeze()  # pytest collects garbage often, and there is none in what was loaded
    reasons = yaml.safe_load(REASONS.read_text("utf-8"))
    alive = survivors() if options.again else None
    found: dict[str, dict[str, Any]] = {
        module: {"mutants": 0, "killed": 0, "survivors": []} for module in modules
    }
    unexplained = 0
    for mutant in tqdm(sample(modules, options.mutants, options.seed), unit="mutant"):
        module, change, entry = mutant.module, mutant.change, found[mutant.module]
        entry["mutants"] += 1
        met_before = alive is not None and (module, change) not in alive
        if met_before or not met(module, mutant.source, limit_of(module)).passed:
            entry["killed"] += 1
            continue
        reason = reasons.get(module, {}).get(change)
        unexplained += reason is None
        entry["survivors"].append({"line": mutant.line, "change": change, "reason": reason})
        print(f"{module}:{mutant.line} {change}\n    {reason}", flush=True)
    total, killed = (sum(entry[key] for entry in found.values()) for key in ("mutants", "killed"))
    print(f"{killed} of {total} killed; {unexplained} of the others unexplained")
    if options.module is None:
        result = {"seed": options.seed, "mutants": total, "killed": killed}
        result |= {"modules": found, "machine": machine()}
        save_part("robustness", "mutants", result)
    return min(unexplained, 1)
