"""A reader of repositories that was written from `docs/format.md` and shares nothing with the product."""
