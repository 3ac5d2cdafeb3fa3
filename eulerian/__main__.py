"""``python -m eulerian``."""

from eulerian.app.cli import entry

entry()
