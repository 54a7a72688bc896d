"""Download and unpack corpora: hashes are checked, and archives are not trusted."""

import stat
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

import pooch
from tqdm import tqdm

from qbhkit.errors import QbhError

_TRIES = 3
_MOST_UNPACKED_BYTES = 4 << 30
_MOST_GROWTH = 100  # times the size of the archive; music and labels grow far less
_SMALL_BYTES = 16 << 20  # always allowed, whatever the growth
_MOST_MEMBERS = 200_000


def download(url: str, target: Path, sha256: str, progress: bool = True) -> None:
    """Download a file in up to three tries; it appears only when it is complete.

    Args:
        url: address.
        target: file to write; one that has the expected hash is not downloaded again.
        sha256: expected hash.
        progress: show a bar on standard error.

    Raises:
        QbhError: if the file cannot be fetched, or has another hash.
        OSError: if it cannot be written.
    """
    pooch.get_logger().setLevel("ERROR")
    name, folder = target.name, target.parent
    store = pooch.Pooch(folder, "", {name: sha256}, {name: url}, retry_if_failed=_TRIES - 1)
    try:
        store.fetch(name, downloader=pooch.HTTPDownloader(progress, chunk_size=1 << 16))
    except OSError as error:  # errors of the connection, too
        if error.errno:
            error.filename = error.filename or str(target)
            raise
        raise QbhError(
            f"{url} cannot be fetched ({error}): try again later, or fetch it by hand."
        ) from None
    except ValueError:
        raise QbhError(
            f"{url} does not have the expected SHA-256 {sha256}: the file on the server has "
            "changed, or the connection is tampered with."
        ) from None


def unpack(archive: Path, target: Path) -> None:
    """Unpack a zip into a new folder, completely or not at all.

    If the archive has a single top folder, ``target`` gets its content.

    Args:
        archive: a zip file.
        target: folder that appears when everything is unpacked; an older one is replaced.

    Raises:
        QbhError: if the archive is damaged, holds links, paths that leave the folder, more than
            200,000 members, or would unpack to over 4 GiB, or over 16 MiB and 100 times its size.
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
