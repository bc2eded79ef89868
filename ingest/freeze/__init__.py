"""Holding a guest still while its disks are opened: hooks and QEMU's guest agent."""
