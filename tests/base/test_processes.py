"""How a program ended, in words."""

from __future__ import annotations

import subprocess
import sys
import tempfile

from holdfast.base.processes import how_it_ended, last_words


def test_codes_and_signals_are_told_apart() -> None:
    assert how_it_ended(3) == "exited with 3"
    assert how_it_ended(-9) == "was killed by signal 9"


def test_the_last_words_are_the_end_of_what_was_said() -> None:
    with tempfile.TemporaryFile() as errors:
        assert last_words(errors) == ""
        code = "import sys; sys.stderr.write('x' * 2000 + 'the end\\n')"
        subprocess.run([sys.executable, "-c", code], stderr=errors, check=True)
        assert last_words(errors, 9) == "xthe end"
        assert len(last_words(errors)) == 999
