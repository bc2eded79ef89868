"""What all file systems share: block devices, directories, file content, access control lists."""
