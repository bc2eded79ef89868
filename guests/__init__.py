"""What is inside a guest's disk: partitions, volumes, file systems, parsed in a process without rights."""
