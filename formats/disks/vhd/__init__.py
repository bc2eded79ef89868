"""Virtual PC's VHD, the format before VHDX."""
