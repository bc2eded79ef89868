"""What hypervisors export: recognised, taken apart into disks and definition files, never trusted."""
