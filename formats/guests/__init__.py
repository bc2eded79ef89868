"""What is inside a guest's disk: volumes and file systems, parsed in the worker."""
