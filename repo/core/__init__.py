"""An open repository. Its keys, mirrored files, the write path, the read path, restores of whole files."""
