"""Operations on all snapshots: check, forget, prune, and the reachability that they share."""
