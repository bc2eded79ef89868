"""What `holdfast backup` is made of: its options, what it shows, databases by URL."""
