"""``python -m eulerian``."""

from eulerian.cli import entry

entry()
