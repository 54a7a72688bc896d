"""Notes to sound: sung voices, accompaniment, mixes of both, and degradations."""
