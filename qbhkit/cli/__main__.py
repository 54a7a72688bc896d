"""``python -m qbhkit.cli``."""

from qbhkit.cli import main

raise SystemExit(main())
