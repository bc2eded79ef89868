"""Who reads on is told from who jumps."""

from __future__ import annotations

from holdfast.base.sequential import SequentialReads


def test_the_first_read_never_reads_on() -> None:
    assert not SequentialReads(before=10, behind=10).notice(0, 4)


def test_a_read_near_the_end_of_the_last_one_reads_on() -> None:
    reads = SequentialReads(before=2, behind=10)
    reads.notice(0, 100)
    assert reads.notice(100, 200)
    assert reads.notice(198, 300)
    assert reads.notice(310, 400)
    assert not reads.notice(411, 500)
    assert not reads.notice(497, 600)
    assert reads.notice(600, 601)
