"""The log files that a backup needs to be recovered."""
