"""A backup of planned parts: what each part is, how consistent it is, one snapshot."""
