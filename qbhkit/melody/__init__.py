"""Audio to f0: one protocol for all pitch trackers, and the synthesis of hums."""
