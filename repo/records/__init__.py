"""Records beside snapshots: proofs of rehearsals and log archives."""
