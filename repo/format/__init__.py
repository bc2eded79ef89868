"""The repository's bytes: record layouts and ciphers. No other package packs or seals them."""
