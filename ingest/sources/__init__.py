"""Sources of a backup's bytes: files, devices, images, compressed streams."""
