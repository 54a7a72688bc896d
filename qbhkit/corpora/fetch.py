"""Download and unpack corpora: downloads resume, hashes are checked, archives are untrusted."""

import http.client
import stat
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from errno import ENOSPC
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from qbhkit.errors import QbhError
from qbhkit.storage import sha256_file

_BLOCK_BYTES = 1 << 16
_TRIES = 5
_MOST_UNPACKED_BYTES = 4 << 30
_MOST_GROWTH = 100  # times the size of the archive; music and labels grow far less
_SMALL_BYTES = 16 << 20  # always allowed, whatever the growth
_MOST_MEMBERS = 200_000


def download(
    url: str, target: Path, sha256: str, wait_s: float = 1.0, progress: bool = True
) -> None:
    """Download a file; after a broken connection the rest is requested.

    Args:
        url: address.
        target: file to write; the part so far is kept beside it as ``NAME.part``, for the next call
            too.
        sha256: expected hash; a file that has it is not downloaded again.
        wait_s: pause before the second try; doubled each time, five tries in all.
        progress: show a bar on standard error.

    Raises:
        QbhError: if the server cannot be reached, or the file has another hash.
    """
    if target.is_file() and sha256_file(target) == sha256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    for attempt in range(_TRIES):
        try:
            _continue(url, part, progress)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno == ENOSPC:
                raise OSError(ENOSPC, error.strerror, str(part)) from None
            if isinstance(error, urllib.error.HTTPError):
                if error.code == 416 and part.is_file():
                    break  # the part is the whole file; its hash decides
                if error.code < 500:
                    raise QbhError(f"{url} answers {error.code}: fetch it by hand.") from None
            if attempt == _TRIES - 1:
                raise QbhError(
                    f"{url} cannot be fetched ({error}): try again later, it will resume."
                ) from None
            time.sleep(wait_s * 2**attempt)
    found = sha256_file(part)
    if found != sha256:
        part.unlink()
        raise QbhError(
            f"{url} has the SHA-256 {found}, not the expected {sha256}, and was deleted: the "
            "file on the server has changed or the connection is tampered with."
        )
    part.replace(target)


def _continue(url: str, part: Path, progress: bool) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        resumed = answer.status == 206
        expected = answer.headers.get("Content-Length")
        total = int(expected) + (have if resumed else 0) if expected else None
        bar = tqdm(
            total=total, initial=have if resumed else 0, unit="B", unit_scale=True,
            desc=part.stem, disable=not progress,
        )  # fmt: skip
        with bar, open(part, "ab" if resumed else "wb") as out:
            while block := answer.read(_BLOCK_BYTES):
                out.write(block)
                bar.update(len(block))
    if total is not None and part.stat().st_size < total:
        raise OSError(f"the connection broke at {part.stat().st_size} of {total} bytes")


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip into a new folder, completely or not at all.

    If the archive has a single top folder, ``target`` gets its content.

    Args:
        archive: a zip file.
        target: folder that appears when everything is unpacked; an older one is replaced.

    Raises:
        QbhError: if the archive is damaged, holds links, paths that leave the folder, more than
            200,000 members, or would unpack to more than 4 GiB or 100 times its own size.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as stored:
            members = stored.infolist()
            _refuse_dangerous(archive, members)
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".unpack-") as folder:
                root = Path(folder) / "content"  # only its owner may read TemporaryDirectory
                root.mkdir()
                for member in tqdm(members, desc="unpack", unit="file", disable=None):
                    stored.extract(member, root)
                inside = [child for child in root.iterdir() if child.name != "__MACOSX"]
                source = inside[0] if len(inside) == 1 and inside[0].is_dir() else root
                if target.exists() or target.is_symlink():
                    target.rename(Path(folder) / "old")  # of a link only the link is removed
                source.rename(target)
    # RuntimeError: encrypted, or compressed by a method that zipfile does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError) as error:
        raise QbhError(f"{archive} is damaged ({error}): delete it and fetch again.") from None


def _refuse_dangerous(archive: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > _MOST_MEMBERS:
        raise QbhError(f"{archive} holds more than {_MOST_MEMBERS} files: it is not this corpus.")
    unpacked = sum(member.file_size for member in members)
    if unpacked > _MOST_UNPACKED_BYTES:
        raise QbhError(f"{archive} would unpack to more than 4 GiB: it is not this corpus.")
    if unpacked > max(_SMALL_BYTES, _MOST_GROWTH * archive.stat().st_size):
        raise QbhError(
            f"{archive} would grow to over {_MOST_GROWTH} times its size: do not use it."
        )
    for member in members:
        if not is_inside(member.filename) or stat.S_ISLNK(member.external_attr >> 16):
            raise QbhError(f"{archive} holds the unsafe path {member.filename!r}: do not use it.")


def is_inside(name: str) -> bool:
    """Return whether a path of an archive or a list of files stays in its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    empty = not path.parts  # such as "./"
    return not (empty or path.is_absolute() or ".." in path.parts or ":" in path.parts[0])
