"""Shared by all engines: connection URLs, passwords, finding and running client programs."""
