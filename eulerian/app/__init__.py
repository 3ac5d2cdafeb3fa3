"""The application on top of the library: configuration, commands, run folders, figures, command line."""
