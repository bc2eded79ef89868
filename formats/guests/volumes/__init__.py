"""Partitions, LVM and LUKS: from a disk to the volumes in it. Imported by the worker only."""
