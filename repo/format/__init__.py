"""Byte layouts and ciphers of repository files. No other package encodes or encrypts them."""
