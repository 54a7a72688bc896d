import contextlib
import errno
import hashlib
import io
import stat
import struct
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qbhkit import corpora
from qbhkit.cli import main
from qbhkit.corpora import fetch
from qbhkit.corpora.fetch import download, unpack
from qbhkit.errors import QbhError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A loopback server whose behaviour each test sets; it counts its answers."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.break_after: list[int] = []  # bytes sent before the connection breaks, one an answer
        self.statuses: list[int] = []  # answered before anything else
        self.answers = 0
        self.url = ""


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _seconds: None))
    plan = Server(CONTENT)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            plan.answers += 1
            if plan.statuses:
                self.send_error(plan.statuses.pop(0))
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(plan.content)))
            self.end_headers()
            sent = plan.break_after.pop(0) if plan.break_after else len(plan.content)
            with contextlib.suppress(ConnectionError):
                self.wfile.write(plan.content[:sent])

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        plan.url = f"http://127.0.0.1:{listening.server_port}/corpus.zip"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield plan
        listening.shutdown()
        thread.join()


def get(server: Server, target: Path) -> None:
    download(server.url, target, SHA256, progress=False)


@pytest.mark.parametrize(
    "trouble", [{}, {"break_after": [100_000, 50_000]}, {"statuses": [500, 503]}]
)
def test_a_file_is_fetched_whole_in_up_to_three_tries(server, tmp_path, trouble):
    vars(server).update(trouble)
    get(server, tmp_path / "new" / "a.zip")
    assert tree(tmp_path) == {"new/a.zip": CONTENT}
    assert server.answers == (3 if trouble else 1)
    get(server, tmp_path / "new" / "a.zip")  # it is not fetched again
    assert server.answers == (3 if trouble else 1)


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ({"break_after": [50_000] * 9}, r"cannot be fetched \(.*try again later"),
        ({"statuses": [404] * 9}, "cannot be fetched .*404 .*fetch it by hand"),
        ({"url": "http://127.0.0.1:1/corpus.zip"}, "cannot be fetched .*try again later"),
        ({"content": CONTENT[:-1] + b"!"}, f"does not have the expected SHA-256 {SHA256}"),
    ],
)
def test_what_cannot_be_fetched_leaves_an_older_file_alone(server, tmp_path, trouble, says):
    vars(server).update(trouble)
    (tmp_path / "a.zip").write_bytes(b"older")
    with pytest.raises(QbhError, match=says):
        get(server, tmp_path / "a.zip")
    assert tree(tmp_path) == {"a.zip": b"older"}
    if trouble.keys() <= {"break_after", "statuses"}:
        vars(server).update(break_after=[], statuses=[])
        get(server, tmp_path / "a.zip")  # a clean start
        assert tree(tmp_path) == {"a.zip": CONTENT}


def test_a_full_disk_is_no_fault_of_the_server(server, tmp_path, monkeypatch):
    def full(*_arguments, **_named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pooch.HTTPDownloader.__call__", full)
    with pytest.raises(OSError, match="No space left") as caught:
        get(server, tmp_path / "a.zip")
    assert caught.value.filename == str(tmp_path / "a.zip")


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as stored:
        for name, content in members.items():
            stored.writestr(name, content)
    return buffer.getvalue()


def tree(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize(
    ("members", "wanted"),
    [
        ({"TOP/a.txt": b"1", "TOP/deep/b.txt": b"2"}, {"a.txt": b"1", "deep/b.txt": b"2"}),
        ({"TOP/a.txt": b"1", "__MACOSX/TOP/._a.txt": b"x"}, {"a.txt": b"1"}),
        ({"a.txt": b"1", "deep/b.txt": b"2"}, {"a.txt": b"1", "deep/b.txt": b"2"}),
    ],
)
def test_a_single_top_folder_is_taken_away(tmp_path, members, wanted):
    (tmp_path / "a.zip").write_bytes(zipped(members))
    unpack(tmp_path / "a.zip", tmp_path / "new" / "out")
    assert tree(tmp_path / "new") == {f"out/{name}": content for name, content in wanted.items()}
    (tmp_path / "plain").mkdir()
    usual = stat.S_IMODE((tmp_path / "plain").stat().st_mode)
    assert stat.S_IMODE((tmp_path / "new" / "out").stat().st_mode) == usual


def test_an_older_folder_is_replaced_altogether_and_of_a_link_only_the_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "old.txt").write_bytes(b"old")
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for name in ("a.txt", "b.txt"):
        (tmp_path / "a.zip").write_bytes(zipped({f"TOP/{name}": b"1"}))
        unpack(tmp_path / "a.zip", tmp_path / "out")
        assert tree(tmp_path / "out") == {name: b"1"}
        assert tree(tmp_path / "disk") == {"old.txt": b"old"}


def with_link() -> bytes:
    link = zipfile.ZipInfo("TOP/link")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as stored:
        stored.writestr("TOP/a.txt", b"1")
        stored.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def with_claimed_sizes() -> bytes:
    """Claim in the central directory that each of two small members holds nearly 4 GiB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as stored:
        stored.writestr("TOP/a", b"1")
        stored.writestr("TOP/b", b"2")
    raw = bytearray(buffer.getvalue())
    at = raw.find(b"PK\x01\x02")
    while at >= 0:
        raw[at + 24 : at + 28] = struct.pack("<I", 0xFFFFFFF0)
        at = raw.find(b"PK\x01\x02", at + 4)
    return bytes(raw)


def bomb() -> bytes:
    """Twenty kilobytes that would unpack to as many megabytes."""
    return zipped({"TOP/a": b"1", "TOP/zeros": bytes(20 << 20)})


def lying_bomb() -> bytes:
    """The same, but the directory says that there are ten bytes."""
    raw = bytearray(bomb())
    at = raw.rfind(b"PK\x01\x02")
    raw[at + 24 : at + 28] = struct.pack("<I", 10)
    return bytes(raw)


def damaged_stream() -> bytes:
    raw = bytearray(zipped({"TOP/text": b"do re mi " * 500}))
    raw[len("TOP/text") + 30 + 2] ^= 0xFF  # the third byte of the compressed text
    return bytes(raw)


def damaged_name() -> bytes:
    return zipped({"TOP/für": b"1"}).replace("ü".encode(), b"\xc3\xff", 1)  # not in the directory


def with_field(after: int, value: int) -> bytes:
    """Two bytes of the header of a member, and of the same in the directory, are another number."""
    raw = bytearray(zipped({"TOP/a": b"1"}))
    for at in (raw.find(b"PK\x03\x04") + 4, raw.find(b"PK\x01\x02") + 6):
        raw[at + after : at + after + 2] = struct.pack("<H", value)
    return bytes(raw)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (zipped({"TOP/a": b"1", "../evil": b"2"}), "unsafe path '../evil'"),
        (zipped({"TOP\\..\\..\\evil": b"2"}), "unsafe path"),
        (zipped({"/evil": b"2"}), "unsafe path '/evil'"),
        (zipped({"C:/evil": b"2"}), "unsafe path"),
        (zipped({"TOP/a": b"1", "./": b""}), "unsafe path"),
        (with_link(), "unsafe path 'TOP/link'"),
        (with_claimed_sizes(), "more than 4 GiB"),
        (bomb(), "would grow to over 100 times its size"),
        (lying_bomb(), "is damaged"),
        (b"", "is damaged"),
        (zipped({"TOP/a": CONTENT})[:100_000], "is damaged"),
        (damaged_stream(), "is damaged"),
        (damaged_name(), "is damaged"),
        (with_field(2, 1), "is damaged .*encrypted"),
        (with_field(4, 99), "is damaged .*compression method"),
    ],
)
def test_dangerous_and_damaged_archives_leave_everything_as_it_was(tmp_path, content, says):
    home = tmp_path / "data"
    (home / "out").mkdir(parents=True)
    (home / "out" / "old.txt").write_bytes(b"old")
    (home / "a.zip").write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(QbhError, match=says):
        unpack(home / "a.zip", home / "out")
    assert tree(tmp_path) == before
    assert {path.name for path in home.iterdir()} == {"a.zip", "out"}


def test_archives_of_very_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "_MOST_MEMBERS", 3)
    (tmp_path / "a.zip").write_bytes(zipped({f"TOP/{k}": b"" for k in range(3)}))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    (tmp_path / "a.zip").write_bytes(zipped({f"TOP/{k}": b"" for k in range(4)}))
    with pytest.raises(QbhError, match="more than 3 files"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


@pytest.fixture
def offered(server, tmp_path, write_midi, monkeypatch) -> Path:
    """Let the server offer a small MIR-QBSH; return the folder for data."""
    notes = np.array([[0, 0.5, 60], [0.5, 0.5, 64.0]])
    members = {
        f"MIR-QBSH/midiFile/{song_id}.mid": write_midi(tmp_path / "x.mid", notes).read_bytes()
        for song_id in ("00001", "00002")
    }
    server.content = zipped({**members, "MIR-QBSH/readme.txt": b"hello"})
    entry = replace(
        corpora.CORPORA["mir-qbsh"],
        url=server.url,
        sha256=hashlib.sha256(server.content).hexdigest(),
    )
    monkeypatch.setitem(corpora.CORPORA, "mir-qbsh", entry)
    return tmp_path / "data"


def test_fetch_and_verify_by_command(server, offered, capsys):
    arguments = ["mir-qbsh", "--data", str(offered)]
    assert main(["data", "verify", *arguments]) == 2
    assert main(["data", "fetch", *arguments]) == 0
    assert "3 files" in capsys.readouterr().out
    midi = {"midiFile/00001.mid", "midiFile/00002.mid"}
    assert set(tree(offered / "mir-qbsh")) == {*midi, "readme.txt"}
    assert main(["data", "verify", *arguments]) == 0
    assert capsys.readouterr().out.startswith("mir-qbsh: checksums match, 2 songs in 2 files\n")

    assert main(["data", "fetch", *arguments]) == 0  # the archive is there: nothing is asked
    assert server.answers == 1
    assert main(["data", "list", "--data", str(offered)]) == 0
    assert "here, 2 files" in capsys.readouterr().out

    (offered / "mir-qbsh" / "readme.txt").write_text("hallo")
    assert main(["data", "verify", *arguments]) == 2
    assert "readme.txt is missing or changed" in capsys.readouterr().err
