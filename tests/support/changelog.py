"""Takes the fragments of changes/ into CHANGELOG.md, under its newest heading: `./dev changelog`."""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]


def fragments(folder: Path) -> list[Path]:
    """The fragments in the order of their names; README.md is none."""
    return [path for path in sorted(folder.glob("*.md")) if path.name != "README.md"]


def merged(changelog: str, texts: list[str]) -> str:
    """The changelog with an entry for each text at the end of its newest section.

    Raises ValueError when that section is released already: its heading has a date.
    """
    head, mark, rest = changelog.partition("\n## ")
    if not mark or "(unreleased)" not in rest.partition("\n")[0]:
        raise ValueError("CHANGELOG.md: the newest heading is not (unreleased); write one first")
    newest, mark_of_older, older = rest.partition("\n## ")
    entries = [
        "\n".join(wrap(" ".join(text.split()), 120, initial_indent="- ", subsequent_indent="  "))
        for text in texts
    ]
    return head + mark + "\n".join([newest.rstrip(), *entries]) + "\n" + (mark_of_older + older)


def main(root: Path = ROOT) -> None:
    found = fragments(root / "changes")
    changelog = root / "CHANGELOG.md"
    changelog.write_text(merged(changelog.read_text(), [path.read_text() for path in found]))
    for path in found:
        path.unlink()


if __name__ == "__main__":
    main()
