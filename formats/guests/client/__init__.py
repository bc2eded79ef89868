"""The client of the parser worker: opens a disk, asks the worker, reads content through chunks."""
