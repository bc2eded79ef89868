"""Use cases without a command line: what a command, a daemon or a web page calls."""
