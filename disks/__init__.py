"""Disk image formats, in and out: readers of foreign images, and images made up around a stored disk."""
