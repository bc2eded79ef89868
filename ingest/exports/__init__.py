"""Exports of hypervisors: which files, disks and definitions belong to one VM."""
