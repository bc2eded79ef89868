"""A made-up file system, "shelf": all that Holdfast knows of a file system, in one folder.

    0      superblock    magic number, label, number of records
    512    records       64 bytes each: directory, mode, size, where the bytes lie, time, name; the first is
                         the root

`table` is what a worker imports in place of the product's module: the product's table and one line more.
"""
