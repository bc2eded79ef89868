"""Exports of hypervisors: finds the files, disks and definitions that belong to one VM."""
