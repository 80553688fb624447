"""Complete runs as Python functions: each returns the settings of one, which the command line can override."""
