"""What is said with a new recovery key."""

from __future__ import annotations

from typing import Final

KEEP_THE_RECOVERY_KEY: Final = """
Recovery key, shown this once:

    {key}

Print it or write it down, and keep it away from this machine. It opens the repository
like the password: type it where the password is asked for."""
