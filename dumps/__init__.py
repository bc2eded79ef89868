"""Database dumps: where their tables stand, and files made out of them. Synchronous; opens nothing."""
