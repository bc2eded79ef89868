"""The mount: snapshots as a read-only file system. The public face is `holdfast.fusefs.mount`."""
