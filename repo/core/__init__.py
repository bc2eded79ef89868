"""An open repository: key slots, mirrored files, the write path, the read path, restores of whole files."""
