"""The decoder in C for processors: compiled once on the machine where it runs, where that has a compiler."""
