"""Hyper-V's VHDX (specification MS-VHDX)."""
