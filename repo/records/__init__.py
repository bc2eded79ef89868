"""Sealed records beside snapshots: proofs of rehearsals and log archives."""
