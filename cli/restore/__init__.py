"""What `holdfast restore` is made of: clusters, and what is shown at the end."""
