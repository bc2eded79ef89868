"""Packs: files of sealed chunks. Reads single records, coalesces many reads, writes packs."""
