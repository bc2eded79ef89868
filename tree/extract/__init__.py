"""Writing files and directories of guests to a directory of the host."""
