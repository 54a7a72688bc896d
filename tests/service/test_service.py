"""The HTTP service: a real server on a loopback port, real sockets, real clients."""

import io
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
import pytest
import soundfile
import uvicorn

from qbhkit.audio import write_wav
from qbhkit.cli import main
from qbhkit.errors import QbhError
from qbhkit.evaluation.benchmarks.bench_service import asked, load
from qbhkit.retrieval.searcher import Answer, answer_line
from qbhkit.service import app as app_module
from qbhkit.service.app import ServiceConfig, create_app
from qbhkit.service.server import bind, is_loopback, read_token, run, settings
from qbhkit.storage import asset

TRUTH = "00004"
PATIENCE_S = 60  # a hang is a failure; nothing is measured by it
TOKEN = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def hum(sung, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("hum") / "my hum.wav"
    write_wav(sung, path)
    return path


class Place(NamedTuple):
    url: str
    address: tuple[str, int]
    folder: Path | None = None  # of uploads
    process: subprocess.Popen | None = None

    def counted(self, what: str) -> float:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(what))


def post(place: Place, body: bytes, **query) -> httpx.Response:
    return httpx.post(f"{place.url}/search", params=query, content=body, timeout=PATIENCE_S)


@contextmanager
def command_line(*arguments) -> Iterator[Place]:
    command = [sys.executable, "-m", "qbhkit.cli", "serve", *map(str, arguments), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = process.stderr.readline()
            assert " answers at http://" in line, line
            host, port = line.split(" answers at http://")[1].split()[0].split(":")
            yield Place(f"http://{host}:{port}", (host, int(port)), process=process)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def service(catalogue) -> Iterator[Place]:
    """The command itself, with the shipped weights."""
    with command_line(catalogue, "--most-mb", "1") as running:
        yield running


@pytest.fixture
def serve(tmp_path, monkeypatch) -> Iterator[Callable[..., Place]]:
    """Start a service in a thread around any recogniser; uploads go to ``folder``."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    started = []

    def serve(recognise=None, **config) -> Place:
        config = ServiceConfig(**config)
        listener, ready = bind("127.0.0.1", 0), threading.Event()
        app = create_app(recognise or answer, 1, config, ready.set)
        server = uvicorn.Server(settings(app, config))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        started.append((server, thread, listener))
        assert ready.wait(PATIENCE_S)
        host, port = listener.getsockname()
        return Place(f"http://{host}:{port}", (host, port), tmp_path)

    yield serve
    for server, thread, listener in started:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
        listener.close()
    assert list(tmp_path.iterdir()) == []  # no upload outlives the service


def answer(path, name, k, match_from):
    """Name a song after the body itself, in an answer with a new field."""
    body = path.read_bytes().decode("latin-1")
    line = answer_line(name, 2.0, [Answer(body, match_from, 0.5, 0, k)], True)
    return {**line, "new": "caf\udce9"}


class Gate:
    """A recogniser that waits until it is let through."""

    def __init__(self) -> None:
        self.open, self.begun = threading.Event(), threading.Semaphore(0)
        self.calls = 0

    def __call__(self, *arguments):
        self.calls += 1
        self.begun.release()
        assert self.open.wait(PATIENCE_S)
        return answer(*arguments)

    def wait(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE_S)


def until(true: Callable[[], bool]) -> None:
    """Wait for what comes about in another thread."""
    for _ in range(PATIENCE_S * 50):
        if true():
            return
        time.sleep(0.02)
    pytest.fail("it never came about")


def head(*lines: str) -> bytes:
    return "\r\n".join(["POST /search HTTP/1.1", "Host: x", *lines, "", ""]).encode()


def dial(place: Place) -> socket.socket:
    return socket.create_connection(place.address, timeout=PATIENCE_S)


def reply(client: socket.socket) -> HTTPResponse:
    response = HTTPResponse(client)
    response.begin()
    return response


class TestAnswers:
    def test_they_are_the_json_of_the_command_line(self, service, hum, catalogue, capfd):
        for words, asked_for in (
            ([], {}),
            (["-k", "2", "--anchor", "start"], {"k": 2, "anchor": "start", "name": "my hum.wav"}),
        ):
            capfd.readouterr()
            assert main(["search", str(hum), "--catalogue", str(catalogue), "--json", *words]) == 0
            line = json.loads(capfd.readouterr().out)
            found = post(service, hum.read_bytes(), **asked_for)
            assert found.json() == {**line, "query": asked_for.get("name", "recording")}
            assert found.json()["results"][0]["song_id"] == TRUTH


def encoded(samples, rate_hz=16000, kind="WAV") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=kind, subtype="PCM_16")
    return file.getvalue()


class TestBadRequests:
    def test_bad_audio_is_one_sentence_about_the_senders_file(self, service):
        for body, reason in (
            (b"this is no recording\n" * 50, "is not audio"),
            (encoded(np.zeros(32000)), "is silent"),
            (encoded(np.random.default_rng(0).normal(0, 0.1, 48000)), "s of the hum is voiced"),
            (encoded(np.zeros(8000 * 3600), 8000, "FLAC"), "is longer than 120 s"),
        ):
            refused = post(service, body, name="memo 1.wav")
            assert refused.status_code == 422
            sentence = refused.json()["detail"]
            assert sentence.startswith("memo 1.wav")
            assert reason in sentence
            assert tempfile.gettempdir() not in sentence
            assert sentence.endswith(".")

    def test_bad_parameters(self, service):
        for query in ({"k": 0}, {"k": 1001}, {"k": "many"}, {"anchor": "end"}, {"name": "n" * 201}):
            refused = post(service, b"x", **query)
            assert refused.status_code == 422
            assert refused.json()["detail"].startswith(next(iter(query)))
        assert httpx.post(f"{service.url}/search", files={"file": b"x"}).status_code == 415


class TestUploads:
    def test_too_large_a_body_is_refused_before_it_is_sent_and_not_swallowed_for_ever(
        self, serve, monkeypatch
    ):
        monkeypatch.setattr(app_module, "_HANG_UP_S", 0.3)
        place = serve(most_mb=1)
        with dial(place) as client:
            client.sendall(head("Content-Length: 1000001"))  # and not one byte of it
            assert reply(client).status == 413

            def cut_off() -> bool:
                try:
                    client.sendall(b"x" * 1000)
                except ConnectionError:
                    return True
                return False

            until(cut_off)
        whole = post(place, bytes(1_000_000))
        assert whole.status_code == 200
        with dial(place) as client:  # the length is kept secret
            client.sendall(head("Transfer-Encoding: chunked"))
            chunk = b"%x\r\n%s\r\n" % (100_000, bytes(100_000))
            client.sendall(chunk * 10)
            client.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.recv(1000)  # a million bytes are allowed
            client.settimeout(PATIENCE_S)
            client.sendall(b"1\r\nx\r\n")
            assert reply(client).status == 413

    def test_a_body_that_drips_runs_out_of_time(self, serve):
        place = serve(timeout_s=0.5)
        with dial(place) as client:
            client.sendall(head("Content-Length: 1000") + b"x")
            assert reply(client).status == 408
        assert place.counted("qbhkit_receiving") == 0

    def test_a_client_that_leaves_midway_leaves_nothing(self, serve):
        place = serve()
        with dial(place) as client:
            client.sendall(head("Content-Length: 1000") + b"x" * 500)
            until(lambda: place.counted("qbhkit_receiving") == 1)
        until(lambda: place.counted('qbhkit_requests_total{path="/search",status="499"}') == 1)
        assert place.counted("qbhkit_receiving") == 0
        (folder,) = place.folder.iterdir()
        assert list(folder.iterdir()) == []

    def test_slow_clients_hold_nobody_up(self, serve):
        place = serve(workers=1, queue=0)
        slow = [dial(place) for _ in range(10)]
        for client in slow:
            client.sendall(head("Content-Length: 4") + b"sl")
        until(lambda: place.counted("qbhkit_receiving") == 10)
        quick = post(place, b"quick")
        assert quick.json()["results"][0]["song_id"] == "quick"
        assert quick.json()["new"] == "caf\udce9"
        slow[7].sendall(b"ow")
        assert json.load(reply(slow[7]))["results"][0]["song_id"] == "slow"
        for client in slow:
            client.close()

    def test_connections_and_heads_are_bounded(self, serve):
        place = serve()
        with dial(place) as client:
            client.sendall(head("X: " + "x" * 20_000)[:-4])  # never ends
            assert reply(client).status == 400
        idle = [dial(place) for _ in range(128)]
        assert post(place, b"x").status_code == 503
        for client in idle:
            client.close()
        until(lambda: post(place, b"x").status_code == 200)

    @pytest.mark.parametrize("kept", ["keep-alive", "close"])
    def test_who_is_refused_before_or_while_sending_reads_why(self, serve, kept):
        gate = Gate()
        place = serve(gate, workers=1, queue=0, most_mb=5)
        with dial(place) as first, dial(place) as second:
            first.sendall(head("Content-Length: 1") + b"1")
            gate.wait()
            second.sendall(head("Content-Length: 1000"))  # and not one byte of it
            assert reply(second).status == 503
            for size in (4_000_000, 8_000_000):  # more than the buffers between the two hold
                with dial(place) as other:
                    other.sendall(head(f"Connection: {kept}", f"Content-Length: {size}"))
                    other.sendall(bytes(size))
                    assert reply(other).status == 503
            gate.open.set()
            assert reply(first).status == 200


class TestOverload:
    def test_40_clients_on_a_slow_searcher(self, serve):
        """Six places: 34 are sent away while not one search has ended, six get their own answer."""
        gate = Gate()
        place = serve(gate, workers=2, queue=4)

        with ThreadPoolExecutor(40) as clients:
            posts = {f"song {k}": clients.submit(post, place, b"song %d" % k) for k in range(40)}
            until(lambda: sum(each.done() for each in posts.values()) == 34)
            gate.open.set()
        answers = {song: each.result() for song, each in posts.items()}
        refused = [one for one in answers.values() if one.status_code == 503]
        assert all(int(one.headers["Retry-After"]) >= 1 for one in refused)
        assert all("try again" in one.json()["detail"] for one in refused)
        right = {song: one for song, one in answers.items() if one.status_code == 200}
        assert all(one.json()["results"][0]["song_id"] == song for song, one in right.items())
        assert (len(right), len(refused), gate.calls) == (6, 34, 6)
        assert place.counted("qbhkit_jobs") == 0

    def test_work_that_timed_out_keeps_its_place_until_it_ends(self, serve):
        gate = Gate()
        place = serve(gate, workers=1, queue=1, timeout_s=0.3)
        for _ in range(2):  # one runs, one waits; the latter is dropped with its client
            late = post(place, b"x")
            assert late.status_code == 504
            assert place.counted("qbhkit_jobs") == 1
        assert gate.calls == 1
        gate.open.set()
        until(lambda: place.counted("qbhkit_jobs") == 0)
        assert post(place, b"x").status_code == 200
        assert gate.calls == 2

    def test_nobody_searches_for_a_client_that_has_gone(self, serve):
        gate = Gate()
        place = serve(gate, workers=1, queue=1)
        with dial(place) as first:
            first.sendall(head("Content-Length: 1") + b"1")
            gate.wait()
            with dial(place) as second:
                second.sendall(head("Content-Length: 1") + b"2")
                until(lambda: place.counted("qbhkit_jobs") == 2)
            until(lambda: place.counted("qbhkit_jobs") == 1)
            gate.open.set()
            assert json.load(reply(first))["results"][0]["song_id"] == "1"
        assert gate.calls == 1


def test_good_and_bad_clients_together(catalogue, hum):
    """``qbhkit bench service``, with fewer clients and for a moment."""
    paths = [hum, asset("hums/demo_1.flac")]
    found = load(catalogue, asked(catalogue, paths), clients=12, warm_s=0.5, seconds=2)
    for what in ("answers", "refused", "too_large", "slow", "left"):
        assert found[what] > 0, what


class TestCredential:
    def test_nobody_gets_in_without_it(self, serve):
        gate = Gate()
        gate.open.set()
        place = serve(gate, token=TOKEN, most_mb=2.5, longest_s=60)
        with dial(place) as client:
            client.sendall(head("Content-Length: 1000"))  # asked before the body
            assert reply(client).status == 401
        wrong = [
            {}, {"Authorization": "Bearer"}, {"Authorization": f"Bearer {TOKEN}x"},
            {"Authorization": f"Bearer {TOKEN[:-1]}"}, {"Authorization": f"Basic {TOKEN}"},
            {"Authorization": TOKEN}, {"Authorization": b"Bearer \xe9\xff"},
        ]  # fmt: skip
        for headers in wrong:
            for method, path in (("POST", "/search"), ("GET", "/metrics")):
                refused = httpx.request(method, place.url + path, headers=headers)
                assert refused.status_code == 401, headers
                assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert gate.calls == 0
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.post(f"{place.url}/search", content=b"x", headers=right).status_code == 200
        assert httpx.get(f"{place.url}/metrics", headers=right).status_code == 200
        assert httpx.get(f"{place.url}/healthz").json() == {
            "status": "ok", "most_bytes": 2_500_000, "longest_s": 60, "needs_token": True,
        }  # fmt: skip

    def test_a_file_holds_it(self, tmp_path):
        path = tmp_path / "token"
        path.write_text(f"{TOKEN}\n")
        assert read_token(path) == TOKEN
        assert TOKEN not in repr(ServiceConfig(token=TOKEN))
        for text in ("", "short", "two words of sixteen letters", "é" * 20):
            path.write_text(text, "utf-8")
            with pytest.raises(QbhError, match="must hold one word of at least 16"):
                read_token(path)
        with pytest.raises(QbhError, match=r"none cannot be read \(No such file.*: name another"):
            read_token(tmp_path / "none")

    def test_an_open_address_needs_one(self):
        assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
        for host in ("0.0.0.0", "::", "192.0.2.1", "example.org", ""):
            with pytest.raises(QbhError, match="--token-file"):
                run(lambda: pytest.fail("loaded"), ServiceConfig(), host, 0, print)


class TestOperation:
    def test_metrics_count(self, serve):
        place = serve()
        for k in (1, 2, 0):
            post(place, b"x", k=k)
            httpx.get(f"{place.url}/made-up-{k}")
        text = httpx.get(f"{place.url}/metrics").text
        assert 'qbhkit_requests_total{path="/search",status="422"} 1.0' in text
        assert 'qbhkit_requests_total{path="other",status="404"} 3.0' in text
        assert "qbhkit_search_seconds_count 2.0" in text
        assert "qbhkit_songs 1.0" in text
        assert "made-up" not in text

    def test_openapi_describes_everything(self, serve):
        described = httpx.get(f"{serve(token=TOKEN).url}/openapi.json").json()
        assert set(described["paths"]) == {"/search", "/healthz", "/metrics"}
        search = described["paths"]["/search"]["post"]
        assert {entry["name"] for entry in search["parameters"]} == {"k", "anchor", "name"}
        assert " ".join(sorted(search["responses"])) == "200 401 408 413 415 422 503 504"
        assert "audio/*" in search["requestBody"]["content"]
        assert search["security"]
        assert described["paths"]["/metrics"]["get"]["security"]
        song = described["components"]["schemas"]["Song"]["properties"]
        assert list(song) == list(Answer._fields)

    def test_the_page_runs_only_its_own_script(self, serve):
        place = serve()
        page = httpx.get(place.url)
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "unsafe" not in policy
        assert page.headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in page.headers
        for name in ("page.js", "recorder.js", "page.css"):
            part = httpx.get(f"{place.url}/{name}")
            assert part.status_code == 200
            assert not re.search("https?://", part.text)
        for path in ("/docs", "/redoc", "/../app.py", "/%2e%2e/app.py", "/nothing"):
            assert httpx.get(place.url + path).status_code == 404


class TestCommand:
    def test_a_wrong_option_or_a_port_that_is_taken_is_one_sentence(
        self, capfd, catalogue, tmp_path
    ):
        with bind("127.0.0.1", 0) as other:  # before anybody answers there
            # what asyncio looks at: without TCP_NODELAY, answers wait for acknowledgements
            assert other.proto == socket.IPPROTO_TCP
            port = other.getsockname()[1]
            for path, arguments, words in (
                (catalogue, ["--port", str(port)], f"Port {port} of 127.0.0.1 cannot be used"),
                (catalogue, ["--most-mb", "0"], "most_mb"),
                (catalogue, ["--timeout", "nan"], "timeout_s"),
                (catalogue, ["--port", "99999"], "99999"),
                (catalogue, ["--token-file", "missing"], "missing"),
                (tmp_path / "none", ["--port", "0"], str(tmp_path / "none")),
            ):
                assert main(["serve", str(path), *arguments]) == 2
                (line,) = capfd.readouterr().err.splitlines()
                assert words in line

    def test_a_missing_package_is_one_sentence(self, capfd, catalogue, monkeypatch):
        for name in [name for name in sys.modules if name.startswith("qbhkit.service.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "uvicorn", None)
        assert main(["serve", str(catalogue)]) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert "pip install 'qbhkit[service]'" in line

    def test_it_stops_when_it_is_told_to(self, catalogue, tmp_path, monkeypatch):
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        with command_line(catalogue) as running:
            with dial(running) as client:
                client.sendall(head("Content-Length: 5") + b"no")
                until(lambda: any(tmp_path.rglob("hum-*")))
                running.process.send_signal(signal.SIGINT)
                client.sendall(b" wa")  # what is under way is answered first
                assert reply(client).status == 422
            running.process.wait(PATIENCE_S)
            assert "Traceback" not in running.process.stderr.read()
        assert list(tmp_path.glob("qbhkit-*")) == []
