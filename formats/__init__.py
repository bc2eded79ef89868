"""Foreign bytes: disk images, file systems inside guests, database dumps.

Nothing here starts a process of another program.
"""
