"""Fragments of the changelog."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import changelog


def test_fragments_become_entries_of_the_newest_section_and_go(tmp_path: Path) -> None:
    (tmp_path / "changes").mkdir()
    for name, text in (("README.md", "how"), ("b.md", "Second\nthing.\n"), ("a.md", "First thing.\n")):
        (tmp_path / "changes" / name).write_text(text)
    (tmp_path / "CHANGELOG.md").write_text(
        "# Log\n\n## 2 (unreleased)\n\n- Old.\n\n## 1 (2026)\n\n- Older.\n"
    )
    changelog.main(tmp_path)
    assert (tmp_path / "CHANGELOG.md").read_text() == (
        "# Log\n\n## 2 (unreleased)\n\n- Old.\n- First thing.\n- Second thing.\n\n## 1 (2026)\n\n- Older.\n"
    )
    assert [path.name for path in (tmp_path / "changes").iterdir()] == ["README.md"]


def test_a_released_section_gets_no_entries() -> None:
    with pytest.raises(ValueError, match="unreleased"):
        changelog.merged("# Changelog\n\n## 1 (2026-01-01)\n", ["x"])


def test_every_fragment_says_something_short() -> None:
    for path in changelog.fragments(changelog.ROOT / "changes"):
        assert 10 < len(path.read_text()) < 600, path.name
