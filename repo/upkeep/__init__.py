"""What looks at all snapshots: check, forget, prune, and the reachability that they share."""
