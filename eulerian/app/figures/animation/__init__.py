"""Animated figures of a run."""
