"""Filters of system calls, as the kernel wants them: classic BPF over `struct seccomp_data`."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Final

# linux/filter.h, linux/seccomp.h
_INSTRUCTION: Final = Struct("<HBBI")
_LOAD, _RETURN = 0x20, 0x06
_JUMPS: Final = {"equal": 0x15, "over": 0x25, "bits": 0x45}
KILL, ALLOW = 0x80000000, 0x7FFF0000
NUMBER_AT, MACHINE_AT, _ARGUMENTS_AT = 0, 4, 16

Instruction = tuple[int, int, int, int]


def returning(error: int) -> int:
    """The answer that makes a call fail with this errno."""
    return 0x00050000 | error


def low_half(argument: int) -> int:
    """Where the low 32 bits of a call's argument are; the high ones follow."""
    return _ARGUMENTS_AT + 8 * argument


def load(offset: int) -> list[Instruction]:
    """Look at the 32 bits there from now on."""
    return [(_LOAD, 0, 0, offset)]


def answer(value: int) -> list[Instruction]:
    """Be done with the call."""
    return [(_RETURN, 0, 0, value)]


def when(test: str, value: int, then: Sequence[Instruction]) -> list[Instruction]:
    """Do `then` when what is looked at is `equal` to the value, `over` it, or has one of its `bits`."""
    return [(_JUMPS[test], 0, len(then), value), *then]


def unless_equal(value: int, then: Sequence[Instruction]) -> list[Instruction]:
    return [(_JUMPS["equal"], len(then), 0, value), *then]


def assemble(program: Sequence[Instruction]) -> bytes:
    """`struct sock_filter` after `struct sock_filter`."""
    return b"".join(_INSTRUCTION.pack(*line) for line in program)
