"""From the outside into the repository: sources, exports, live disks, the pipeline."""
