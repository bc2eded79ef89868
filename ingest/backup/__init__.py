"""Backs up planned parts as one snapshot: recognises each part and grades its consistency."""
