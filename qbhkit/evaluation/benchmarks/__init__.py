"""The benchmarks that ``qbhkit bench NAME`` runs: each module ``bench_NAME`` has a ``main``."""
