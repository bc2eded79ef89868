"""Backs up planned items as one snapshot: recognises each item and grades its consistency."""
