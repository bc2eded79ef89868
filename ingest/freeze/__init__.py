"""Freezes a guest while its disks are opened: hook commands and QEMU's guest agent."""
