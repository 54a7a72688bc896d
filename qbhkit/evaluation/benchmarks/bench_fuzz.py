"""Every reader of the kit against damaged files: ``qbhkit bench fuzz``.

Each target of ``fuzz_targets.py`` is attacked in a process of its own; where its code is Python,
atheris (``pip install atheris``; no part of the kit's set-up) guides half of the inputs by the
lines they reach. Results are written a reader at a time; a find ends the run and keeps its input,
and ``--only`` takes the run up at the readers that are left.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

from qbhkit.evaluation.benchmarks import common
from qbhkit.evaluation.benchmarks.fuzz_targets import TARGETS

ATTACKER = [sys.executable, "-m", "qbhkit.evaluation.benchmarks.fuzzing"]
A_RUN = 4000  # inputs a process, so that what a reader leaks cannot add up for ever


def attacked(target: str, count: int, seed: int, *options: str) -> dict[str, Any]:
    """Attack one target in a process of its own; if it dies, its last input is kept and named."""
    folder = Path(tempfile.mkdtemp(prefix=f"fuzz-{target}-")) / "attack"
    command = [*ATTACKER, target, str(count), str(seed), str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith('{"inputs"')]
    if not found:
        died = f"{target}, seed {seed}: died of {folder / 'input'}"
        raise AssertionError(f"{died}\n{done.stderr[-4000:]}")
    return dict(json.loads(found[-1]))


def runs(total: int) -> Iterator[tuple[str, int, int, bool]]:
    """Share so many inputs among the targets: name, count, seed, guided or not."""
    each = -(-total // len(TARGETS))
    for name, target in TARGETS.items():
        for seed, begin in enumerate(range(0, each, A_RUN)):
            yield name, min(A_RUN, each - begin), seed, target.guided and seed % 2 == 1


def main() -> None:
    parser = common.arguments(__doc__, inputs=100_000)  # shared among all readers
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    options = common.parse(parser)
    guidable = find_spec("atheris") is not None
    planned = [run for run in runs(options.inputs) if run[0] in options.only]
    for name, share in groupby(planned, key=lambda run: run[0]):
        entry = {"inputs": 0, "guided": 0, "refused": 0, "slowest_s": 0.0, "peak_mb": 0}
        for _, count, seed, guided in share:
            how = ["--guided"] if guided and guidable else []
            counts = attacked(name, count, seed, *how)
            print(f"{name:10} seed {seed} {'guided' if how else 'chance':7}", counts, flush=True)
            for key in ("inputs", "refused"):
                entry[key] += counts[key]
            entry["guided"] += counts["inputs"] if how else 0
            for key in ("slowest_s", "peak_mb"):
                entry[key] = max(entry[key], counts[key])
        common.save(options, "robustness", entry, "files", "readers", name)
