"""Readers of melody corpora behind one protocol, and the sources a catalogue is built from."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qbhkit.audio import AUDIO_SUFFIXES
from qbhkit.config import RENAMED_VALUES
from qbhkit.corpora.abc import MUSIC21_COLLECTIONS, AbcFiles, music21_collection
from qbhkit.corpora.folders import (
    AudioFiles,
    F0Files,
    Ioacas,
    MelodyTable,
    MirQbsh,
    SeedContours,
    pop909,
    transcribed,
)
from qbhkit.corpora.midi import MidiFiles
from qbhkit.corpora.songs import Corpus, Song, natural_key, songs_of, stem_of
from qbhkit.errors import QbhError

__all__ = [
    "CORPORA",
    "Corpus",
    "CorpusInfo",
    "Song",
    "open_corpus",
    "open_source",
    "songs_of",
    "stem_of",
]


@dataclass(frozen=True)
class CorpusInfo:
    """Describe a named corpus."""

    name: str  # and that of its folder in the data folder
    what: str
    where: str
    terms: str
    cure: str  # how to get it
    open: Callable[[Path], Corpus]  # takes the folder ``DATA/NAME``
    url: str | None = None  # of the archive, if ``qbhkit data fetch`` can download it
    sha256: str | None = None


def _mirex(root: Path) -> Corpus:
    files = tuple(sorted(root.glob("*.mid")))
    if not files:
        raise QbhError(f"{root} holds no MIDI files: put the 2,000 Essen files of MIREX there.")
    return MidiFiles(files, "mirex-essen-2000", "Essen collection, research use")


def _in_music21(name: str, terms: str) -> CorpusInfo:
    return CorpusInfo(
        name,
        "folk tunes in ABC notation",
        f"inside the installed music21 package (corpus/{name})",
        terms,
        "pip install music21",
        lambda _root: music21_collection(name),
    )


def _table(name: str, file: str, what: str, where: str, terms: str) -> CorpusInfo:
    return CorpusInfo(
        name,
        what,
        where,
        terms,
        f"put its melodies as {file} into DATA/{name} (layout: qbhkit.corpora.folders.MelodyTable)",
        lambda root: MelodyTable(root / file, name, terms),
    )


CORPORA = {
    info.name: info
    for info in [
        *(_in_music21(name, terms) for name, terms in MUSIC21_COLLECTIONS.items()),
        CorpusInfo(
            "mir-qbsh",
            "48 songs (MIDI) and 4,431 hums of 8 s by 195 singers",
            "http://mirlab.org/dataSet/public/MIR-QBSH.zip",
            "public research corpus (R. Jang)",
            "qbhkit data fetch mir-qbsh; if the server is down, unpack the archive to "
            "DATA/mir-qbsh yourself",
            MirQbsh,
            "http://mirlab.org/dataSet/public/MIR-QBSH.zip",
            "36520b36a7856a555ba196dc52a572dad31c2f14f2adc5071996786c0ef69bae",
        ),
        CorpusInfo(
            "mirex-essen-2000",
            "2,000 Essen folk songs (MIDI) that MIREX adds to mir-qbsh as distractors",
            "MIREX query-by-singing/humming task, music-ir.org",
            "Essen collection, research use",
            "ask the task's organisers and put the .mid files into DATA/mirex-essen-2000",
            _mirex,
        ),
        CorpusInfo(
            "ioacas",
            "298 melodies on a 100 ms grid, 340 queries as semitones",
            "IOACAS QBH corpus, Institute of Acoustics, Chinese Academy of Sciences",
            "research use",
            "ask its authors and put the three files into DATA/ioacas",
            Ioacas,
        ),
        CorpusInfo(
            "pop909",
            "909 Chinese pop songs (MIDI: melody, bridge, piano)",
            "https://github.com/music-x-lab/POP909-Dataset",
            "MIT",
            "git clone it and link its POP909 folder as DATA/pop909",
            pop909,
        ),
        CorpusInfo(
            "pop909-transcribed",
            "melodies of pop909 that a tracker found in rendered mixes",
            "made from pop909 on this machine",
            "MIT, as POP909",
            "qbhkit data transcribe pop909",
            transcribed,
        ),
        CorpusInfo(
            "seed-contours",
            "100 excerpts of melodies extracted from commercial songs",
            "https://github.com/jdasam/qbh_project (data/contour_tiny.json)",
            "none stated: local use",
            "put contour_tiny.json into DATA/seed-contours",
            SeedContours,
        ),
        _table(
            "lmd-vocals",
            "notes.npz",
            "8,889 vocal lines of pop songs (notes), found by their lyrics",
            "Lakh MIDI dataset, https://colinraffel.com/projects/lmd",
            "Lakh: CC BY 4.0; this extraction states none: local use",
        ),
        _table(
            "hooktheory",
            "notes.npz",
            "16,232 excerpts of pop melodies (notes), timed as in the recordings",
            "https://github.com/chrisdonahue/sheetsage-data",
            "CC BY-NC-SA 3.0",
        ),
        _table(
            "medleydb",
            "melody2_10ms.npz",
            "melodies of 108 multitrack recordings (f0), corrected by hand",
            "https://medleydb.weebly.com",
            "annotations MIT / CC BY-NC-SA",
        ),
    ]
}


def open_corpus(name: str, data: Path) -> Corpus:
    """Open one of ``CORPORA`` in the data folder.

    Raises:
        QbhError: if the name is unknown or its files are not there; says how to get them.
    """
    name = RENAMED_VALUES.get(name, name)
    if name not in CORPORA:
        raise QbhError(f"There is no corpus {name!r}; 'qbhkit data list' shows the known ones.")
    return CORPORA[name].open(data / name)


_FILE_READERS: list[tuple[tuple[str, ...], Callable[[tuple[Path, ...]], Corpus]]] = [
    ((".f0.csv",), F0Files),
    ((".mid", ".midi"), MidiFiles),
    ((".abc",), AbcFiles),
    (AUDIO_SUFFIXES, AudioFiles),
]


def open_source(source: str, data: Path) -> list[Corpus]:
    """Open a source as users name it: a corpus, a file, or a folder with all its subfolders.

    Args:
        source: a name, or a path (``./pop909`` is not the corpus).
        data: the folder that holds named corpora.

    Returns:
        One corpus for each kind of file.

    Raises:
        QbhError: if it is none of the three, or a folder without files that the kit reads.
    """
    if RENAMED_VALUES.get(source, source) in CORPORA:
        return [open_corpus(source, data)]
    path = Path(source)
    if path.is_dir():
        found = [child for child in path.rglob("*") if child.is_file() and child.name[:2] != "._"]
        files = sorted(found, key=lambda child: natural_key(str(child)))
    elif path.is_file():
        files = [path]
    else:
        raise QbhError(
            f"{source} is neither a file, a folder nor a corpus that 'qbhkit data list' shows."
        )
    corpora = []
    for suffixes, reader in _FILE_READERS:
        chosen = tuple(child for child in files if child.name.lower().endswith(suffixes))
        if chosen:
            corpora.append(reader(chosen))
    if not corpora:
        kinds = ", ".join(suffix for suffixes, _ in _FILE_READERS for suffix in suffixes)
        raise QbhError(f"{source} holds nothing to index: the kit reads {kinds}.")
    return corpora
