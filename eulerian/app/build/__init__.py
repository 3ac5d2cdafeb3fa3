"""From a configuration to its problem."""
