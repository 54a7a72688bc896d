"""Audio to f0: one protocol for all trackers, two melody networks, and the training of one."""
