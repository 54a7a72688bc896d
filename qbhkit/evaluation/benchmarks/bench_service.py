"""The HTTP service under many clients at once: ``qbhkit bench service``.

Sixty-four clients hum at a server on this machine for five minutes, each anew as soon as it is
answered or, when it is sent away, as soon as the service asks it to come back. Beside them some
clients send a byte a second, some leave midway, and some announce far too large a body. Every
answer has to be that of ``qbhkit search --json``, and memory has to stay flat. The counts go into
data/results/robustness.json.
"""

import asyncio
import json
import math
import re
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qbhkit.audio import write_wav
from qbhkit.corpora.abc import music21_collection
from qbhkit.corpora.songs import songs_of
from qbhkit.evaluation.benchmarks import common
from qbhkit.storage import asset
from qbhkit.synthesis.singer import Voice, render_hum

CORPUS = "miscFolk"
RENDERED = 9  # hums beside the three that ship with the kit
K = 5
MOST_MB = 1
LAST_DIGIT = 1.5e-6
FLAT = 0.05  # share by which memory may grow
PATIENCE_S = 60.0  # a client that waits longer has been forgotten
SLOW, LEAVING, TOO_LARGE = 8, 4, 2  # clients that behave badly


Query = tuple[bytes, dict[str, Any]]  # a recording, and what the command line says to it


class Reply(NamedTuple):
    """What came back, and after how long."""

    status: int
    content: bytes
    taken_s: float


@dataclass
class Seen:
    """What the clients have seen: how often, and how long it took."""

    status: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[Any, Any]] = field(default_factory=list)  # what came, what was right
    answer_s: list[float] = field(default_factory=list)
    refusal_s: list[float] = field(default_factory=list)


def hums(folder: Path) -> list[Path]:
    paths = [asset(f"hums/demo_{number}.flac") for number in (1, 2, 3)]
    for number, song in zip(range(RENDERED), songs_of(music21_collection(CORPUS)), strict=False):
        assert song.notes is not None
        notes = song.notes[song.notes[:, 0] < 8]
        audio = render_hum(notes, Voice(key_st=number - 10), np.random.default_rng(number)).audio
        write_wav(audio, folder / f"{number}.flac")
        paths.append(folder / f"{number}.flac")
    return paths


def asked(catalogue: Path, paths: Sequence[Path]) -> list[Query]:
    command = common.qbhkit("search", *paths, "--json", "--catalogue", catalogue, "-k", K)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) | {"query": "recording"} for line in done.stdout.splitlines()]
    return list(zip(map(Path.read_bytes, paths), lines, strict=True))


@contextmanager
def serving(catalogue: Path) -> Iterator[tuple[subprocess.Popen[str], tuple[str, int]]]:
    command = common.qbhkit("serve", catalogue, "--port", 0, "--most-mb", MOST_MB)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = re.search(r"http://([\d.]+):(\d+)", line := process.stderr.readline())
            assert address, line
            yield process, (address[1], int(address[2]))
        finally:
            process.terminate()


def head(length: int, what: str = f"POST /search?k={K}") -> bytes:
    """Return the head of a request with a body of so many bytes."""
    lines = [f"{what} HTTP/1.1", "Host: here", "Connection: close", f"Content-Length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


async def send(address: tuple[str, int], request: bytes) -> Reply:
    """Send one request and read its answer until the service hangs up."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request)
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
    first, _, content = answer.partition(b"\r\n\r\n")
    return Reply(int(first.split()[1]), content, time.perf_counter() - began)


async def hold(
    address: tuple[str, int], queries: Sequence[Query], seconds: float, clients: int, seen: Seen
) -> None:
    """Let all clients, good and bad, do what they do for so long."""
    end = time.perf_counter() + seconds

    async def hum(number: int) -> None:
        content, right = queries[number % len(queries)]
        reply = await send(address, head(len(content)) + content)
        seen.status[str(reply.status)] += 1
        if reply.status == 200:
            seen.answer_s.append(reply.taken_s)
            if not is_same(answer := json.loads(reply.content), right):
                seen.wrong.append((answer, right))
        else:
            seen.refusal_s.append(reply.taken_s)
            await asyncio.sleep(1)  # as Retry-After asks

    async def drip(_number: int) -> None:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(head(1000))
        refused = asyncio.ensure_future(reader.read())  # 408, when its time is up
        while time.perf_counter() < end and not refused.done():
            writer.write(b"x")
            await asyncio.wait([refused], timeout=1)
        refused.cancel()
        seen.status["slow"] += 1
        writer.close()

    async def leave(_number: int) -> None:
        _, writer = await asyncio.open_connection(*address)
        writer.write(head(1000) + b"x" * 500)
        await asyncio.sleep(0.5)
        seen.status["left"] += 1
        writer.close()

    async def announce(_number: int) -> None:
        reply = await send(address, head(MOST_MB * 1_000_000 + 1))  # and not one byte of it
        refused = reply.status in (413, 503)  # 503 where all places are taken anyway
        seen.status["too large" if refused else "too large, taken"] += 1
        await asyncio.sleep(1)

    async def repeat(act: Callable[[int], Awaitable[None]], number: int) -> None:
        while time.perf_counter() < end:
            try:
                await act(number)
            except (OSError, IndexError) as error:  # hung up on without an answer; forgotten
                seen.status[f"{act.__name__}: {type(error).__name__}"] += 1
            number += 1

    crowd = {hum: clients, drip: SLOW, leave: LEAVING, announce: TOO_LARGE}
    await asyncio.gather(
        *(repeat(act, number) for act, count in crowd.items() for number in range(count))
    )


def is_same(one: Any, other: Any) -> bool:
    """Compare answers: the last of six digits may differ, for sums of float32 differ in theirs."""
    if type(one) is not type(other):
        return bool(one == other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float):
        return math.isclose(one, other, abs_tol=LAST_DIGIT)
    return bool(one == other)


async def watched(pid: int, work: Awaitable[None]) -> list[float]:
    """Do a work; return the memory of a process meanwhile, MB, every second."""
    task, found = asyncio.ensure_future(work), []
    while not task.done():
        found.append(common.memory_mb("VmRSS", pid))
        await asyncio.wait([task], timeout=1)
    await task
    return found


def load(
    catalogue: Path, queries: Sequence[Query], clients: int, warm_s: float, seconds: float
) -> dict[str, Any]:
    """Hold a service under load: no answer is wrong, no client forgotten, nothing left over."""
    with serving(catalogue) as (process, address):

        async def run() -> tuple[Seen, list[float], Reply]:
            await hold(address, queries, warm_s, clients, Seen())
            seen = Seen()
            memory = await watched(process.pid, hold(address, queries, seconds, clients, seen))
            await asyncio.sleep(1)
            return seen, memory, await send(address, head(0, "GET /metrics"))

        seen, memory, metrics = asyncio.run(run())
    assert not seen.wrong, f"{len(seen.wrong)} wrong answers, such as {seen.wrong[0]}"
    assert set(seen.status) <= {"200", "503", "slow", "left", "too large"}, seen.status
    for name in (b"qbhkit_jobs 0.0", b"qbhkit_receiving 0.0"):
        assert name in metrics.content
    minute = max(1, min(60, len(memory) // 2))
    first, last = (float(np.mean(part)) for part in (memory[:minute], memory[-minute:]))
    names = {"answers": "200", "refused": "503", "too_large": "too large"}
    names |= {"slow": "slow", "left": "left"}
    return {
        "clients": clients,
        "seconds": seconds,
        "wrong": len(seen.wrong),
        **{key: seen.status[name] for key, name in names.items()},
        "answer_ms": common.percentiles_ms(seen.answer_s),
        "refusal_ms": common.percentiles_ms(seen.refusal_s),
        "memory_mb": {"first_minute": round(first, 1), "last_minute": round(last, 1)},
    }


def main() -> None:
    options = common.parse(common.arguments(__doc__, clients=64, seconds=300.0, warm=60.0))
    with tempfile.TemporaryDirectory() as name:
        catalogue = Path(name) / "catalogue"
        build = common.qbhkit("catalogue", "build", CORPUS, "--out", catalogue)
        subprocess.run(build, check=True)
        queries = asked(catalogue, hums(Path(name)))
        found = load(catalogue, queries, options.clients, options.warm, options.seconds)
    memory = found["memory_mb"]
    assert memory["last_minute"] <= (1 + FLAT) * memory["first_minute"], memory
    print(json.dumps(found, indent=1))
    common.save(options, "robustness", found | {"catalogue": CORPUS}, "service")
