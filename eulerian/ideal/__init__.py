"""The best that any velocity can do: the convex problem over all flows, and what it certifies."""
