"""A made-up database engine, "ledger": all that Holdfast knows of an engine, in one folder.

Its dumps are lines of text: `%LEDGER 1`, then for each table `table NAME COLUMN,...` and rows
`NAME<tab>VALUE,...`, and `%END` last. `ENTRY` is its line in the registry.
"""

from __future__ import annotations

from holdfast.formats.dumps.engines import EngineEntry

ENTRY = EngineEntry(
    "ledger", ("ledger:",), "support.fourth_engine.dump_format:ENGINE", "support.fourth_engine.server:SERVER"
)
