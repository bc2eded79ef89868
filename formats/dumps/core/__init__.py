"""What all engines share: the catalogue of a dump, scanning, virtual files, decompression, tar headers."""
