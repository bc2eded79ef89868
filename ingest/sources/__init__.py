"""Where bytes of a backup come from: files, devices, images, compressed streams."""
