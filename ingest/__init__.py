"""Reads sources into the repository: files, exports of VMs, live disks, streams."""
