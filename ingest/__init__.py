"""Reads what is backed up into the repository: sources, exports of VMs, live disks, the pipeline."""
