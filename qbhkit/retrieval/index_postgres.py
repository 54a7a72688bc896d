"""Windows on a PostgreSQL server with pgvector: the index that many processes and machines share.

A catalogue is a schema of its own with the tables ``about``, ``batches``, ``songs`` and
``windows``. It holds all that an answer names, so a client needs no file of the catalogue. Each
write is one transaction: readers see the songs before it or after it, never a part of them.

The connection string is libpq's, from an argument or the variable ``QBHKIT_POSTGRES``; what it
leaves out comes from libpq's own variables and password file. The server needs memory to build the
graph of many windows fast: put ``options='-c maintenance_work_mem=4GB'`` into the string.
"""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.read import Catalogue
from qbhkit.errors import QbhError, missing_package
from qbhkit.retrieval.index import Nearest, checked_queries, checksum

POSTGRES_FORMAT = 1
VARIABLE = "QBHKIT_POSTGRES"
_SCHEMA_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,39}")
_CONNECT_TIMEOUT_S = 10
_MOST_EFFORT = 1000  # pgvector's highest ef_search
_CURE = "write the catalogue to the server again"

_TABLES = """
CREATE TABLE {schema}.about (format int NOT NULL, model text NOT NULL, size int NOT NULL);
CREATE TABLE {schema}.batches (
    first bigint PRIMARY KEY, windows bigint NOT NULL, sha256 text NOT NULL
);
CREATE TABLE {schema}.songs (
    number bigint PRIMARY KEY, id text NOT NULL UNIQUE, title text NOT NULL,
    source text NOT NULL, licence text NOT NULL
);
CREATE TABLE {schema}.windows (
    number bigint PRIMARY KEY, song bigint NOT NULL REFERENCES {schema}.songs,
    start_s float8 NOT NULL, end_s float8 NOT NULL, vector {halfvec} NOT NULL
)
"""
# Adding to a finished graph is slow: the graph of a catalogue is built after all its windows.
_GRAPH = """
CREATE INDEX ON {schema}.windows USING hnsw (vector halfvec_ip_ops)
WITH (m = 16, ef_construction = 100)
"""
# The graph compares half-precision products: those of the few windows found are computed again.
_NEAREST = """
SELECT number, -(vector::vector <#> %(query)s::vector) AS similarity
FROM (
    SELECT number, vector FROM {schema}.windows
    ORDER BY vector <#> %(query)s::{halfvec} LIMIT %(asked)s
) AS found
ORDER BY similarity DESC, number LIMIT %(k)s
"""
_OUR_COLUMNS = """
SELECT count(*) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attname IN ('format', 'model', 'size')
"""
_SIGHT = """
SELECT set_config('hnsw.ef_search', %s, true),
    set_config('hnsw.iterative_scan', 'relaxed_order', true)
"""
_PASSAGES = """
SELECT songs.id, songs.title, songs.source, songs.licence, windows.start_s, windows.end_s
FROM unnest(%s::bigint[]) WITH ORDINALITY AS asked (number, place)
JOIN {schema}.windows USING (number) JOIN {schema}.songs ON songs.number = windows.song
ORDER BY asked.place
"""


class Passage(NamedTuple):
    """A window as the server stores it."""

    song_id: str
    title: str
    source: str
    licence: str
    start_s: float
    end_s: float


class PostgresIndex:
    """Search windows on a server; give each thread an index of its own.

    A row is a window's number on the server. Songs that are added continue the numbers, so a row of
    the catalogue that was written stays the same until the schema is written anew.

    Args:
        schema: of the catalogue on the server.
        dsn: libpq's connection string; ``QBHKIT_POSTGRES`` if None.
        effort: candidates kept during a search (``hnsw.ef_search``), 1 to 1000.

    Attributes:
        model: identity of the weights that made the vectors.
        size: of a vector.

    Raises:
        QbhError: if the server cannot be reached or holds no such catalogue.
        MissingPackageError: if psycopg or pgvector is not installed.
    """

    name = "postgres"

    def __init__(self, schema: str = "qbhkit", dsn: str | None = None, effort: int = 200) -> None:
        self.schema, self.effort = _checked(schema), effort
        self._server = _Server(dsn)
        with self._server.transaction() as run:
            about = _about(run, schema)
        if about is None:
            self.close()
            raise QbhError(f"The server holds no catalogue {schema}: {_CURE}.")
        self.model, self.size = about
        self._opened: list[tuple[int, int, str]] | None = None  # batches of a catalogue in memory

    @classmethod
    def build(
        cls,
        catalogue: Catalogue,
        schema: str = "qbhkit",
        dsn: str | None = None,
        readers: Sequence[str] = (),
    ) -> "PostgresIndex":
        """Write a catalogue to a server; an older one in the schema is replaced at the end.

        Args:
            catalogue: its songs and windows are written, its contours are not.
            schema: small letters, digits and underscores.
            dsn: of a role that may create schemas, and the extension pgvector where it is missing.
            readers: roles that may search the catalogue.

        Raises:
            QbhError: if the server cannot be reached or refuses, or the schema holds something
                else. Nothing has changed then.
            MissingPackageError: if psycopg or pgvector is not installed.
        """
        new, size = f"{_checked(schema)}__new", catalogue.vectors.shape[1]
        with closing(_Server(dsn)) as server, server.transaction() as run:
            _lock(run, schema)
            run.execute("CREATE EXTENSION IF NOT EXISTS vector")
            older = _about(run, schema) is not None
            if not older and _exists(run, schema):
                raise QbhError(f"The schema {schema} holds something else: choose another name.")
            run.execute(_sql("CREATE SCHEMA {schema}", new))
            run.execute(_sql(_TABLES, new, size))
            about = POSTGRES_FORMAT, catalogue.model, size
            run.execute(_sql("INSERT INTO {schema}.about VALUES (%s, %s, %s)", new), about)
            _insert(run, new, catalogue)
            run.execute(_sql(_GRAPH, new))
            for role in readers:
                _grant(run, new, role)
            if older:  # only now, so that readers wait for no more than the change of names
                run.execute(_sql("LOCK TABLE {schema}.windows IN ACCESS EXCLUSIVE MODE", schema))
                run.execute(_sql("DROP SCHEMA {schema} CASCADE", schema))
            run.execute(_sql("ALTER SCHEMA {schema} RENAME TO {name}", new, name=schema))
        return cls(schema, dsn)

    @classmethod
    def open(
        cls, catalogue: Catalogue, schema: str = "qbhkit", dsn: str | None = None
    ) -> "PostgresIndex":
        """Connect, and check that the rows on the server are those of this catalogue.

        Songs that are added later are not found until it is opened again.

        Raises:
            QbhError: if the rows differ; also as the class.
        """
        index = cls(schema, dsn)
        with index._server.transaction() as run:
            batches = index._opened = index._batches(run)
        vectors = catalogue.vectors
        if sum(windows for _, windows, _ in batches) != len(vectors) or any(
            checksum(vectors[first : first + windows]) != digest
            for first, windows, digest in batches
        ):
            index.close()
            raise QbhError(
                f"The schema {schema} on the server holds other windows than {catalogue.path}: "
                f"{_CURE}."
            )
        return index

    def nearest(self, queries: NDArray, k: int) -> Nearest:
        """Find about the ``k`` nearest windows of each of (Q, D) vectors of length 1.

        All queries of a call see the same songs.

        Returns:
            Windows in the order of their exact cosines; a nearer one may have been missed. A window
            of a song that was added later has the row -1 and its cosine, which is an upper bound of
            those that follow.

        Raises:
            QbhError: if the queries have another shape or are not finite, ``k`` is under 1, the
                server fails, or its catalogue is no longer the one that was opened.
        """
        queries = checked_queries(queries, k, self.size)
        similarity = np.full((len(queries), k), -1, np.float32)
        row = np.full((len(queries), k), -1, np.int64)
        asked = max(k, self.effort)
        statement = _sql(_NEAREST, self.schema, self.size)
        with self._server.transaction() as run:
            run.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # Before the first statement, so that a reader who waits here sees the new catalogue.
            run.execute(_sql("LOCK TABLE {schema}.windows IN ACCESS SHARE MODE", self.schema))
            opened = self._opened
            if opened is not None and self._batches(run)[: len(opened)] != opened:
                raise QbhError(
                    f"The schema {self.schema} on the server was written anew: open it again."
                )
            run.execute(_SIGHT, [str(min(asked, _MOST_EFFORT))])
            for q, query in enumerate(queries):
                values = {"query": str(query.tolist()), "asked": asked, "k": k}
                # Not prepared: a plan made without the limit would read all windows.
                found = run.execute(statement, values, prepare=False).fetchall()
                if found:
                    row[q, : len(found)], similarity[q, : len(found)] = zip(*found, strict=True)
        if opened is not None:  # its catalogue in memory has no rows for songs added later
            row[row >= sum(windows for _, windows, _ in opened)] = -1
        return Nearest(similarity, row)

    def _batches(self, run: Any) -> list[tuple[int, int, str]]:
        statement = "SELECT first, windows, sha256 FROM {schema}.batches ORDER BY first"
        return list(run.execute(_sql(statement, self.schema)).fetchall())

    def passages(self, rows: Sequence[int] | NDArray[np.int64]) -> list[Passage]:
        """Describe windows, in the order of their (N,) rows.

        Raises:
            QbhError: if there is no such window, or the server fails.
        """
        wanted = [int(row) for row in rows]
        with self._server.transaction() as run:
            found = run.execute(_sql(_PASSAGES, self.schema), [wanted]).fetchall()
        if len(found) != len(wanted):
            raise QbhError(f"The catalogue {self.schema} was written anew meanwhile: search again.")
        return [Passage(*values) for values in found]

    def add(self, catalogue: Catalogue) -> None:
        """Add all songs of another catalogue; searches at the same time see all of them or none.

        Args:
            catalogue: made by the same model.

        Raises:
            QbhError: if it is of another model, a song is there already, or the server fails.
                Nothing has changed then.
        """
        if (catalogue.model, catalogue.vectors.shape[1]) != (self.model, self.size):
            raise QbhError(
                f"{catalogue.path} was made by the model {catalogue.model}, the catalogue "
                f"{self.schema} on the server by {self.model}: build one again with its weights."
            )
        with self._server.transaction() as run:
            _lock(run, self.schema)
            if _about(run, self.schema) != (self.model, self.size):
                raise QbhError(f"The catalogue {self.schema} was written anew: open it again.")
            _insert(run, self.schema, catalogue)

    def close(self) -> None:
        """Close the connection."""
        self._server.close()


class _Server:
    """A connection that is opened again when it is lost, and whose errors are one sentence."""

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._connection = _connect(dsn)

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """Yield a cursor; commit after the block, or roll back if it raises."""
        import psycopg

        if self._connection.closed:
            self._connection = _connect(self._dsn)
        try:
            with self._connection.transaction(), self._connection.cursor() as run:
                yield run
        except psycopg.Error as error:
            raise QbhError(
                f"PostgreSQL failed ({_first_line(error)}): nothing has changed."
            ) from None

    def close(self) -> None:
        self._connection.close()


def _connect(dsn: str | None) -> Any:
    """Connect; no message repeats the connection string, which may hold a password."""
    try:
        import pgvector  # noqa: F401
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise missing_package("The index postgres", "'psycopg[binary]' pgvector") from None
    try:
        known: dict[str, Any] = conninfo_to_dict(
            dsn if dsn is not None else os.environ.get(VARIABLE, "")
        )
    except psycopg.ProgrammingError:
        raise QbhError(
            f"The connection string (argument or {VARIABLE}) is malformed: write "
            "postgresql://user@host/database."
        ) from None
    try:
        known.setdefault("connect_timeout", _CONNECT_TIMEOUT_S)
        return psycopg.connect(**known, autocommit=True)
    except psycopg.Error as error:
        said = _first_line(error).replace(str(known.get("password") or "\n"), "***")
        raise QbhError(
            f"PostgreSQL refused the connection ({said}): check host, user and password in the "
            f"connection string (argument or {VARIABLE})."
        ) from None


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".")


def _checked(schema: str) -> str:
    if not _SCHEMA_NAME.fullmatch(schema):
        raise QbhError(
            f"A schema is named by up to 40 small letters, digits and underscores, not {schema!r}."
        )
    return schema


def _sql(template: str, schema: str, size: int = 0, **names: str) -> Any:
    """Put identifiers into a statement; values are never put in, they are bound."""
    from psycopg import sql

    parts = {key: sql.Identifier(name) for key, name in {"schema": schema, **names}.items()}
    return sql.SQL(template).format(**parts, halfvec=sql.SQL(f"halfvec({int(size)})"))


def _lock(run: Any, schema: str) -> None:
    """Let one writer of a schema in at a time, until its transaction ends."""
    run.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"qbhkit {schema}"])


def _exists(run: Any, schema: str) -> bool:
    found = run.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchone()
    return found is not None


def _about(run: Any, schema: str) -> tuple[str, int] | None:
    """Return model and vector size of the catalogue in a schema; None if there is none."""
    (known,) = run.execute(_OUR_COLUMNS, [f"{schema}.about"]).fetchone()
    if known < 3:  # no such table, or one of another program
        return None
    columns = _sql("SELECT format, model, size FROM {schema}.about", schema)
    version, model, size = run.execute(columns).fetchone() or (None, "", 0)
    if version != POSTGRES_FORMAT:
        raise QbhError(
            f"The catalogue {schema} has format {version}, not {POSTGRES_FORMAT}: {_CURE}."
        )
    return model, size


def _grant(run: Any, schema: str, role: str) -> None:
    run.execute(_sql("GRANT USAGE ON SCHEMA {schema} TO {role}", schema, role=role))
    run.execute(_sql("GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}", schema, role=role))


def _insert(run: Any, schema: str, catalogue: Catalogue) -> None:
    """Append songs and windows to those on the server."""
    if not catalogue.songs:
        return
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector

    register_vector(run.connection)
    run = run.connection.cursor()  # only a later cursor knows the type
    ids = [_text(song["id"]) for song in catalogue.songs]
    known = run.execute(
        _sql("SELECT id FROM {schema}.songs WHERE id = ANY(%s) LIMIT 1", schema), [ids]
    ).fetchone()
    if known is not None:
        raise QbhError(f"The song {known[0]} is on the server already: leave it out.")
    first_song, first = (
        run.execute(_sql(f"SELECT count(*) FROM {{schema}}.{table}", schema)).fetchone()[0]
        for table in ("songs", "windows")
    )
    batch = first, len(catalogue.vectors), checksum(catalogue.vectors)
    run.execute(_sql("INSERT INTO {schema}.batches VALUES (%s, %s, %s)", schema), batch)
    with run.copy(_sql("COPY {schema}.songs FROM STDIN", schema)) as copy:
        for number, song in enumerate(catalogue.songs, first_song):
            fields = (_text(song[key]) for key in ("id", "title", "source", "licence"))
            copy.write_row((number, *fields))
    with run.copy(_sql("COPY {schema}.windows FROM STDIN (FORMAT BINARY)", schema)) as copy:
        copy.set_types(["int8", "int8", "float8", "float8", "halfvec"])
        spans = zip(catalogue.song, catalogue.start_s, catalogue.end_s, strict=True)
        for number, (song, start_s, end_s) in enumerate(spans, first):
            vector = HalfVector(catalogue.vectors[number - first])
            copy.write_row((number, first_song + int(song), float(start_s), float(end_s), vector))
    run.execute(_sql("ANALYZE {schema}.windows", schema))


def _text(value: str) -> str:
    """Return text that the server accepts: a file name may hold any bytes."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
