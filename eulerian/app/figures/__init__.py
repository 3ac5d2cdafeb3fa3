"""What is drawn of a run."""

from eulerian.app.figures import style  # noqa: F401 - Matplotlib is set up before a figure loads it
