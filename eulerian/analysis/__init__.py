"""What to look at: checks of a problem by its own laws."""
