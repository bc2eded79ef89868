"""Disk image formats: readers for backups, and exports that show a stored disk in another format."""
