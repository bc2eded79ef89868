"""Shared by all commands: settings, passwords, output, progress, exit codes."""
