"""What every floor uses: errors, types, ranges, durable files and the host's file systems.

Imports nothing of Holdfast.
"""
