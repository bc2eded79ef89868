"""Packs: files of sealed chunks. Reading one record, coalescing many reads, writing."""
