"""The compiled dynamic time warping against plain loops, and its three entries with one another."""

import numpy as np
import pytest

from qbhkit.dtw import (
    NO_CAP_ST,
    distances_to_songs,
    flatten,
    paths_through_songs,
    warping_path,
)


def naive(query, song, key, from_start=False, cap=NO_CAP_ST, step_cost=0.0):
    """Mean cost and frames of the best path, cell by cell; of equally good ones the first."""
    cells = {}
    for i in range(len(query)):
        for j in range(len(song)):
            near = min(abs(query[i] - song[j] - key), cap)
            if i == 0:
                if j == 0 or not from_start:
                    cells[i, j] = (near, [j])
                continue
            ways = []
            if (way := cells.get((i - 1, j - 1))) is not None:
                ways.append((way[0] + near, [*way[1], j]))
            if (way := cells.get((i - 1, j - 2))) is not None:
                ways.append((way[0] + near + step_cost, [*way[1], j]))
            if (way := cells.get((i - 2, j - 1))) is not None:
                before = min(abs(query[i - 1] - song[j] - key), cap)
                ways.append((way[0] + before + near + step_cost, [*way[1], j, j]))
            if ways:
                cells[i, j] = min(ways, key=lambda way: way[0])
    ends = [cells[len(query) - 1, j] for j in range(len(song)) if (len(query) - 1, j) in cells]
    cost, path = min(ends, key=lambda way: way[0], default=(np.inf, []))
    return cost / len(query), np.array(path, int)


def searched(query, song, start, end, keys, from_start, cap):
    """The search by its definition: each key is moved to that of its path, up to three times.

    Returns:
        Distance, first frame, frame after the last and key of each path, best first.
    """
    begin = min(max(start, 0), len(song) - 1)
    likely = np.median(query) - np.median(song[begin : max(min(end, len(song)), begin + 1)])
    found = []
    for key in likely + np.array(keys):
        for _ in range(3):
            distance, path = naive(query, song, key, from_start, cap)
            if not np.isfinite(distance):
                break
            found.append((distance, path[0], path[-1] + 1, key))
            moved = np.median(query - song[path])
            if abs(moved - key) < 0.05:
                break
            key = moved
    return sorted(found)


def curves(seed, query=10, song=25):
    """A query and a song that have nothing in common, and no two paths that cost the same."""
    rng = np.random.default_rng(seed)
    lengths = query, song
    return tuple(
        (60 + rng.integers(-9, 10, n) + rng.normal(0, 0.2, n)).astype(np.float32) for n in lengths
    )


def one_song(query, song, keys=(0.0,), from_start=False, cap=3.0, start=0, end=None):
    """The path through one song as :func:`paths_through_songs` finds it among others."""
    songs = flatten([np.full(4, 90.0), song, np.arange(40.0)], cap)
    chosen, begin, stop = np.array([[1], [start], [len(song) if end is None else end]])
    found = paths_through_songs(query, songs, chosen, begin, stop, np.array(keys), from_start)
    return [column[0] for column in found]


@pytest.mark.parametrize(
    ("seed", "from_start", "cap", "step_cost"),
    [
        (0, True, NO_CAP_ST, 0.0),
        (1, False, NO_CAP_ST, 0.01),
        (2, True, 3.0, 1.5),
        (3, False, 3.0, 0.0),
    ],
)
def test_a_path_equals_a_naive_loop(seed, from_start, cap, step_cost):
    query, song = curves(seed)
    for key in (0.0, -2.5, 7.0):
        found = warping_path(query, song, [key], from_start, cap, step_cost)
        distance, frames = naive(query, song, key, from_start, cap, step_cost)
        assert found.distance_st == pytest.approx(distance, abs=1e-5)
        assert found.key_st == key
        np.testing.assert_array_equal(found.frames, frames)
        assert not from_start or found.frames[0] == 0


def test_of_several_keys_the_best_counts_and_of_equal_ones_the_first():
    query, song = curves(5)
    keys = [-6.0, -1.5, 0.0, 2.0, 2.0]
    alone = [warping_path(query, song, [key]) for key in keys]
    found = warping_path(query, song, keys)
    best = int(np.argmin([path.distance_st for path in alone]))
    assert (found.distance_st, found.key_st) == alone[best][:2]
    np.testing.assert_array_equal(found.frames, alone[best].frames)
    flat = np.full(8, 60.0)
    assert warping_path(flat, flat, [1.0, -1.0]).key_st == 1.0
    nothing = warping_path(query, song, [])
    assert (nothing.distance_st, nothing.key_st, len(nothing.frames)) == (np.inf, 0.0, 0)


@pytest.mark.parametrize(("frames", "from_start"), [(2, True), (9, False), (10, True)])
def test_a_song_of_less_than_half_the_query_holds_no_path(frames, from_start):
    query = np.linspace(60, 62, frames).astype(np.float32)
    least = 1 + frames // 2  # at half the speed
    for length in (1, least - 1, least, least + 1):
        song = np.full(length, 61.0)
        found = warping_path(query, song, [0.0], from_start)
        distance, start, end, _ = one_song(query, song, from_start=from_start)
        (alone,) = distances_to_songs(
            query, flatten([song]), np.zeros(1, np.float32), np.array([0, 1]), from_start
        )
        assert [*map(np.isfinite, (found.distance_st, distance, alone))] == [length >= least] * 3
        assert len(found.frames) == (frames if length >= least else 0)
        assert (start < end) == (length >= least)


def test_one_frame_lies_on_the_nearest_one():
    found = warping_path([64.0], [60.0, 63.5, 70.0], [0.0])
    assert found.frames.tolist() == [1]
    assert found.distance_st == pytest.approx(0.5)
    assert warping_path([64.0], [60.0, 64.0], [0.0], from_start=True).frames.tolist() == [0]


@pytest.mark.parametrize(
    ("seed", "start", "end", "from_start", "cap"),
    [
        (0, 0, 25, True, 3.0),
        (1, -9, 1, False, NO_CAP_ST),
        (0, -9, 999, True, NO_CAP_ST),
        (1, 7, 8, False, 3.0),
        (1, 99, 3, True, 3.0),
        (0, 25, 25, False, 3.0),
        (1, 3, 12, True, NO_CAP_ST),
    ],
)
def test_the_search_for_path_and_key_is_what_it_is_defined_as(seed, start, end, from_start, cap):
    query, song = curves(seed)
    keys = (0.0, -1.5, 1.5)
    found = one_song(query, song, keys, from_start, cap, start, end)
    wanted = searched(query, song, start, end, keys, from_start, cap)
    assert found[0] == pytest.approx(wanted[0][0], abs=1e-5)
    assert any(found == pytest.approx(way, abs=1e-5) for way in wanted)  # keys may be as good


def test_chosen_songs_come_in_the_order_asked_for():
    songs = [curves(seed)[1] for seed in range(5)]
    query = songs[3][5:17] + 2
    chosen = np.array([4, 3, 0])
    found = paths_through_songs(
        query, flatten(songs, 3.0), chosen, 0 * chosen, 0 * chosen + 25,
        np.array([0.0, -1.5, 1.5]), False,
    )  # fmt: skip
    assert found.distance_st.argmin() == 1
    assert (found.start[1], found.end[1]) == (5, 17)
    assert found.key_st[1] == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize("from_start", [True, False])
def test_distances_are_the_least_over_the_keys_of_each_song(from_start):
    songs = [curves(seed, song=12 + 3 * seed)[1] for seed in range(6)]
    songs += [np.zeros(0, np.float32), songs[0]]  # an empty song, and one without keys
    keys = [np.arange(-1, seed, dtype=np.float32) for seed in range(6)] + [[], []]
    offset = np.cumsum([0, *map(len, keys)])
    query = curves(9)[0]
    found = distances_to_songs(
        query, flatten(songs), np.concatenate(keys).astype(np.float32), offset, from_start
    )
    assert found[6:].tolist() == [np.inf, np.inf]
    for distance, song, some in zip(found[:6], songs, keys, strict=False):
        path = warping_path(query, song, some, from_start)
        assert distance == pytest.approx(path.distance_st, abs=1e-5)
