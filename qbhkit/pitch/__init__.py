"""Audio to f0: one protocol for all trackers, two melody networks, and the synthesis of voices."""
