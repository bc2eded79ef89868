"""Holdfast: an encrypted, deduplicating backup repository for VMs and databases that you mount."""

__version__ = "0.1.0"
