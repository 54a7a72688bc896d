"""Windows on a PostgreSQL server with pgvector: the index that many processes and machines share.

A catalogue is a schema with the tables ``about``, ``batches``, ``songs`` and ``windows``, written
in one transaction: readers see the older catalogue or the newer one. The connection string is
libpq's; ``options='-c maintenance_work_mem=4GB'`` in it builds the graph of many windows faster.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbhkit.catalogue.read import Catalogue
from qbhkit.errors import QbhError, missing_package
from qbhkit.retrieval.index import Nearest, checked_queries, checksum

POSTGRES_FORMAT = 1
VARIABLE = "QBHKIT_POSTGRES"
_SCHEMA_NAME = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,39}")
_CONNECT_TIMEOUT_S = 10
_EFFORT, _MOST_EFFORT = 200, 1000  # candidates kept during a search (hnsw.ef_search)
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
# The graph compares half-precision products; those of the few windows found are computed exactly.
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


class PostgresIndex:
    """Search windows on a server; give each thread an index of its own.

    Args:
        catalogue: the one that was written.
        schema: its name on the server: lower-case letters, digits and underscores.
        dsn: libpq's connection string; ``QBHKIT_POSTGRES`` if None.

    Raises:
        QbhError: if the server cannot be reached or does not hold the windows of the catalogue.
    """

    name = "postgres"

    def __init__(
        self, catalogue: Catalogue, schema: str = "qbhkit", dsn: str | None = None
    ) -> None:
        self.schema, self._dsn, self._connection = _checked(schema), dsn, _connect(dsn)
        self.size = catalogue.vectors.shape[1]
        vectors, wrong = catalogue.vectors, ""
        with self._transaction() as run:
            if not _is_ours(run, schema):
                wrong = f"The server holds no catalogue {schema}"
            else:
                batches = self._batches = self._read_batches(run)
        if not wrong and (
            sum(windows for _, windows, _ in batches) != len(vectors)
            or any(checksum(vectors[at : at + count]) != sha256 for at, count, sha256 in batches)
        ):
            wrong = f"The schema {schema} on the server holds other windows than {catalogue.path}"
        if wrong:
            self.close()
            raise QbhError(f"{wrong}: {_CURE}.")

    @classmethod
    def open(
        cls, catalogue: Catalogue, schema: str = "qbhkit", dsn: str | None = None
    ) -> "PostgresIndex":
        """Connect to the index of a catalogue; arguments and errors are those of the class."""
        return cls(catalogue, schema, dsn)

    @classmethod
    def build(
        cls, catalogue: Catalogue, schema: str = "qbhkit", dsn: str | None = None
    ) -> "PostgresIndex":
        """Write a catalogue to a server; an older one in the schema is replaced at the end.

        Who may read it is up to the server (``ALTER DEFAULT PRIVILEGES``).

        Args:
            catalogue: its songs and windows are written, its contours are not.
            schema: lower-case letters, digits and underscores.
            dsn: of a role that may create schemas, and the extension pgvector where it is missing.

        Raises:
            QbhError: if the server refuses, or the schema holds something else; nothing is changed.
        """
        new = f"{_checked(schema)}__new"
        with closing(_connect(dsn)) as connection, _transaction(connection) as run:
            # One writer of a schema at a time, until its transaction ends.
            lock = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
            run.execute(lock, [f"qbhkit {schema}"])
            run.execute("CREATE EXTENSION IF NOT EXISTS vector")
            older = _is_ours(run, schema)
            exists = run.execute("SELECT to_regnamespace(%s)", [schema]).fetchone()
            if not older and exists != (None,):
                raise QbhError(f"The schema {schema} holds something else: choose another name.")
            run.execute(_sql("CREATE SCHEMA {schema}", new))
            run.execute(_sql(_TABLES, new, catalogue.vectors.shape[1]))
            _insert(connection, new, catalogue)
            run.execute(_sql(_GRAPH, new))
            if older:  # only now, so that readers wait for no more than the change of names
                run.execute(_sql("LOCK TABLE {schema}.windows IN ACCESS EXCLUSIVE MODE", schema))
                run.execute(_sql("DROP SCHEMA {schema} CASCADE", schema))
            run.execute(_sql("ALTER SCHEMA {schema} RENAME TO {name}", new, name=schema))
        return cls(catalogue, schema, dsn)

    def nearest(self, queries: NDArray, k: int) -> Nearest:
        """Find the nearest windows approximately, in the order of their exact cosines."""
        queries = checked_queries(queries, k, self.size)
        similarity = np.full((len(queries), k), -1, np.float32)
        row = np.full((len(queries), k), -1, np.int64)
        asked = max(k, _EFFORT)
        statement = _sql(_NEAREST, self.schema, self.size)
        with self._transaction() as run:
            run.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            # Before the first statement, so that a reader who waits here sees the new catalogue.
            run.execute(_sql("LOCK TABLE {schema}.windows IN ACCESS SHARE MODE", self.schema))
            if self._read_batches(run) != self._batches:
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
        return Nearest(similarity, row)

    def _read_batches(self, run: Any) -> list[tuple[int, int, str]]:
        """Return which windows the schema holds: first number, count and checksum of each batch."""
        statement = "SELECT first, windows, sha256 FROM {schema}.batches ORDER BY first"
        return list(run.execute(_sql(statement, self.schema)).fetchall())

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        if self._connection.closed:  # it was lost
            self._connection = _connect(self._dsn)
        with _transaction(self._connection) as run:
            yield run

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


@contextmanager
def _transaction(connection: Any) -> Iterator[Any]:
    """Yield a cursor; commit after the block, or roll back and say why in one sentence."""
    import psycopg

    try:
        with connection.transaction(), connection.cursor() as run:
            yield run
    except psycopg.Error as error:
        raise QbhError(f"PostgreSQL failed ({_first_line(error)}): nothing has changed.") from None


def _connect(dsn: str | None) -> Any:
    """Connect; no message repeats the connection string, which may hold a password."""
    try:
        import pgvector  # noqa: F401
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    except ImportError:
        raise missing_package("The index postgres", "'psycopg[binary]' pgvector") from None
    try:
        written = dsn if dsn is not None else os.environ.get(VARIABLE, "")
        known: dict[str, Any] = conninfo_to_dict(written)
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
            "A schema is named by up to 40 lower-case letters, digits and underscores, not "
            f"{schema!r}."
        )
    return schema


def _sql(template: str, schema: str, size: int = 0, **names: str) -> Any:
    """Put identifiers into a statement; values are never put in, they are bound."""
    from psycopg import sql

    parts = {key: sql.Identifier(name) for key, name in {"schema": schema, **names}.items()}
    return sql.SQL(template).format(**parts, halfvec=sql.SQL(f"halfvec({int(size)})"))


def _is_ours(run: Any, schema: str) -> bool:
    """Return whether a schema holds a catalogue; raise QbhError if it is of another format."""
    (known,) = run.execute(_OUR_COLUMNS, [f"{schema}.about"]).fetchone()
    if known < 3:  # no such table, or one of another program
        return False
    stored = run.execute(_sql("SELECT format FROM {schema}.about", schema)).fetchone()
    (version,) = stored or (None,)
    if version != POSTGRES_FORMAT:
        raise QbhError(
            f"The schema {schema} on the server has format {version}, not {POSTGRES_FORMAT}: "
            f"choose another name, or drop it (DROP SCHEMA {schema} CASCADE) and {_CURE}."
        )
    return True


def _insert(connection: Any, schema: str, catalogue: Catalogue) -> None:
    from pgvector import HalfVector
    from pgvector.psycopg import register_vector

    register_vector(connection)
    run = connection.cursor()  # only a later cursor knows the type
    vectors = catalogue.vectors
    about = POSTGRES_FORMAT, catalogue.model, vectors.shape[1]
    run.execute(_sql("INSERT INTO {schema}.about VALUES (%s, %s, %s)", schema), about)
    batch = 0, len(vectors), checksum(vectors)
    run.execute(_sql("INSERT INTO {schema}.batches VALUES (%s, %s, %s)", schema), batch)
    with run.copy(_sql("COPY {schema}.songs FROM STDIN", schema)) as copy:
        for number, song in enumerate(catalogue.songs):
            fields = (_text(song[key]) for key in ("id", "title", "source", "licence"))
            copy.write_row((number, *fields))
    with run.copy(_sql("COPY {schema}.windows FROM STDIN (FORMAT BINARY)", schema)) as copy:
        copy.set_types(["int8", "int8", "float8", "float8", "halfvec"])
        spans = zip(catalogue.song, catalogue.start_s, catalogue.end_s, strict=True)
        for number, (song, start_s, end_s) in enumerate(spans):
            vector = HalfVector(vectors[number])
            copy.write_row((number, int(song), float(start_s), float(end_s), vector))
    run.execute(_sql("ANALYZE {schema}.windows", schema))


def _text(value: str) -> str:
    """Return text that the server accepts: a file name may hold any bytes."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
