import sys

import numpy as np
import pytest
import symusic

from qbhkit.errors import MissingPackageError, QbhError
from qbhkit.pitch.trackers import get_tracker
from qbhkit.synthesis import accompaniment
from qbhkit.synthesis.accompaniment import (
    BASSES,
    CHOIRS,
    CHORDS,
    COUNTER_LINES,
    GUITARS,
    LEADS,
    MORE_CHORDS,
    PADS,
    SOLOISTS,
    UNHEARD,
    Part,
    arrange_accompaniment,
    arrange_dense,
    cut_notes,
    read_score,
    render_parts,
)

NOTES = np.array([[0.0, 0.5, 72], [0.5, 0.5, 74], [1.0, 1.0, 76]])
TRIADS = np.array([[0.5 * k, 0.5, p] for k in range(4) for p in (48, 55, 64)], float)
RATE_HZ = 8000


def write_song(path, tracks, qpm=120.0):
    """Write name -> (M, 3) notes in seconds as a MIDI file."""
    score = symusic.Score(480, ttype="tick")
    score.tempos.append(symusic.Tempo(0, qpm))
    a_second = 480 * qpm / 60
    for name, notes in tracks.items():
        track = symusic.Track(name=name, is_drum=name == "drums")
        for onset, duration, pitch in notes:
            begin, length = round(onset * a_second), max(1, round(duration * a_second))
            track.notes.append(symusic.Note(begin, length, int(pitch), 90))
        score.tracks.append(track)
    score.dump_midi(path)
    return path


class TestReadScore:
    def test_the_tune_and_what_accompanies_it(self, tmp_path):
        tracks = {"PIANO": TRIADS, "MELODY": NOTES, "Bass": TRIADS[:2], "drums": TRIADS[:3]}
        score = read_score(write_song(tmp_path / "a.mid", tracks, qpm=90))
        np.testing.assert_allclose(score.melody, NOTES, atol=2e-3)
        assert len(score.chords) == len(TRIADS) + 2  # no drums
        assert (np.diff(score.chords[:, 0]) >= 0).all()
        assert score.beat_s == pytest.approx(60 / 90, rel=1e-3)

    def test_a_damaged_file_or_one_without_both_is_refused_in_one_sentence(self, tmp_path):
        path = tmp_path / "a.mid"
        for tracks in ({"Piano": TRIADS}, {"MELODY": NOTES, "drums": TRIADS}, {}):
            write_song(path, tracks)
            with pytest.raises(QbhError, match=r"^\S*a\.mid needs a track named melody and an acc"):
                read_score(path)
        path.write_bytes(b"MThd rubbish")
        with pytest.raises(QbhError, match=r"^\S*a\.mid is not a readable MIDI file"):
            read_score(path)


def test_cut_notes_count_from_the_start_and_end_with_the_span():
    before = NOTES.copy()
    found = cut_notes(NOTES, 0.4, 0.9)
    np.testing.assert_allclose(found, [[0.1, 0.5, 74], [0.6, 0.3, 76]])
    np.testing.assert_array_equal(NOTES, before)
    np.testing.assert_array_equal(cut_notes(NOTES, 0.5, 0.5)[:, 2], [74])  # without its end
    assert cut_notes(NOTES, 10, 5).shape == (0, 3)


class TestArrange:
    def test_chords_a_bass_and_drums_in_their_ranges(self):
        kinds = set()
        for seed in range(20):
            parts = arrange_accompaniment(TRIADS, 0.5, 2.0, np.random.default_rng(seed))
            chords = [part for part in parts if part.program in CHORDS and not part.drums]
            assert 1 <= len(chords) <= 2
            for part in parts:
                assert 1 <= part.velocity <= 127
                if part.drums:
                    kinds.add("drums")
                    assert (part.notes[:, 0] < 2.0).all()
                    assert set(part.notes[:, 2]) <= {36, 38, 42}
                elif part.program in BASSES:
                    kinds.add("bass")
                    assert (part.notes[:, 2] % 12 == 0).all()  # the roots: C
                    assert (part.notes[:, 2] >= 28).all()
                    assert (part.notes[:, 2] < 52).all()
                    assert len(part.notes) == 4
                else:
                    np.testing.assert_array_equal(part.notes, TRIADS)
            alone = arrange_accompaniment(np.zeros((0, 3)), 0.5, 2.0, np.random.default_rng(seed))
            assert all(part.drums or not len(part.notes) for part in alone)
        assert kinds == {"bass", "drums"}


class TestRender:
    def test_the_length_is_exact_and_no_notes_are_silence(self):
        audio = render_parts([Part(0, TRIADS, 90)], 0.777, 44100)
        assert audio.rate_hz == 44100
        assert len(audio.samples) == round(0.777 * 44100)
        assert audio.samples.dtype == np.float32
        assert not render_parts([Part(0, np.zeros((0, 3)), 90)], 0.1, RATE_HZ).samples.any()

    def test_a_note_sounds_from_its_onset_at_its_pitch(self):
        samples = render_parts([Part(19, np.array([[0.5, 0.5, 69.0]]), 100)], 1.2, RATE_HZ).samples
        assert np.abs(samples[:3900]).max() < 1e-3
        assert np.abs(samples[4400:8000]).max() > 0.01
        spectrum = np.abs(np.fft.rfft(samples[4800:8000] * np.hanning(3200)))
        frequency = np.fft.rfftfreq(3200, 1 / RATE_HZ)
        loudest = frequency[spectrum.argmax()]
        assert min(abs(np.log2(loudest / 440) % 1), 1 - abs(np.log2(loudest / 440) % 1)) < 0.02
        assert np.abs(samples[-800:]).max() < 0.5 * np.abs(samples).max()  # and it ends

    def test_drums_have_no_pitch(self):
        hits = np.array([[0.0, 0.1, 42.0]])  # a closed hat, an F sharp on a piano
        drums = render_parts([Part(0, hits, 100, drums=True)], 0.3, 16000).samples
        piano = render_parts([Part(0, hits, 100)], 0.3, 16000).samples
        drums_power, piano_power = (np.abs(np.fft.rfft(x)) ** 2 for x in (drums, piano))
        half = len(drums_power) // 2  # of the spectrum
        assert drums_power[half:].sum() > 0.5 * drums_power.sum()
        assert piano_power[half:].sum() < 0.01 * piano_power.sum()


def test_missing_packages_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinysoundfont", None)
    with pytest.raises(MissingPackageError, match="pip install --no-deps tinysoundfont"):
        render_parts([], 1.0, RATE_HZ)
    monkeypatch.setattr(accompaniment, "find_spec", lambda name: None)
    accompaniment.soundfont.cache_clear()
    with pytest.raises(MissingPackageError, match=r"pip install 'qbhkit\[training\]' brings pret"):
        accompaniment.soundfont()


@pytest.fixture(scope="module")
def bands():
    return [arrange_dense(TRIADS, 0.5, 8.0, np.random.default_rng(seed)) for seed in range(60)]


class TestDense:
    def test_bands_have_three_to_six_parts_of_every_kind(self, bands):
        assert {len(parts) for parts in bands} == {3, 4, 5, 6}
        drawn = {part.program for parts in bands for part in parts if not part.drums}
        for programs in (GUITARS, MORE_CHORDS, PADS, CHOIRS, COUNTER_LINES, BASSES):
            assert drawn & set(programs)
        for part in (part for parts in bands for part in parts):
            assert part.notes.shape[1] == 3
            assert 1 <= part.velocity <= 127
            assert (part.notes[:, 2] >= 28).all()

    def test_guitars_play_power_chords_and_basses_octaves(self):
        chords = np.array([[0.0, 1.0, 50.0], [0.0, 1.0, 57.0], [0.0, 1.0, 66.0]])  # D major
        bands = [arrange_dense(chords, 0.5, 2.0, np.random.default_rng(seed)) for seed in range(30)]
        guitars = [p for parts in bands for p in parts if set(p.notes[:, 2]) == {50, 57, 62}]
        assert guitars
        assert {part.program for part in guitars} <= set(GUITARS)
        basses = [p for parts in bands for p in parts if p.program in BASSES and not p.drums]
        assert basses
        assert all(set(part.notes[:, 2]) == {38, 50} for part in basses)

    def test_drum_loops_end_in_time_and_differ(self, bands):
        drums = [part.notes for parts in bands for part in parts if part.drums]
        assert len(drums) > 20
        assert all((notes[:, 0] < 8.0).all() for notes in drums)
        hit = {frozenset(notes[:, 2]) for notes in drums}
        assert len(hit) > 4  # patterns, with or without crash and toms
        assert {49.0, 43.0} <= set().union(*hit)  # a crash, and a tom of a fill

    def test_chords_are_not_needed(self):
        for seed in range(10):
            parts = arrange_dense(np.zeros((0, 3)), 0.5, 2.0, np.random.default_rng(seed))
            assert all(part.drums or not len(part.notes) for part in parts)


def test_thirty_programs_are_new_and_the_unheard_are_never_drawn():
    old = {*CHORDS, *BASSES, *LEADS}
    every = {*old, *GUITARS, *MORE_CHORDS, *PADS, *CHOIRS, *COUNTER_LINES, *SOLOISTS}
    assert len(every - old) == 30
    assert max(every) < 128
    assert not every & set(UNHEARD)


@pytest.mark.parametrize("program", [*SOLOISTS, *UNHEARD])
def test_soloists_sound_at_the_written_pitch(program):
    pitches = np.array([57, 60, 64, 67, 72])
    notes = np.stack([0.6 * np.arange(5), np.full(5, 0.6), pitches], 1)
    found = get_tracker("swift-f0").track(render_parts([Part(program, notes, 100)], 3.0, 16000))
    frames = np.arange(12, 40) + 60 * np.arange(5)[:, None]  # the middle of each note
    apart = 1200 * np.log2(found.frequency_hz[frames] / (440 * 2 ** ((pitches[:, None] - 69) / 12)))
    of_notes = np.median(np.where(found.voiced[frames], apart, 9999), axis=1)
    assert np.median(np.abs(of_notes)) < 30
