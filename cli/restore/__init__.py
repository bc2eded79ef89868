"""Parts of `holdfast restore`: clusters, and the report at the end."""
