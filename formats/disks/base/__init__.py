"""What all disk formats share: images, block tables, views, errors, CRC32C."""
