"""Parts of `holdfast backup`: its options, its output, databases by URL."""
