"""The wrapper that every request handler wears.

pyfuse3 lets a handler raise `FUSEError` and nothing else: any other exception ends the mount for
everybody. So it is logged, and the one request is answered EIO.
"""

from __future__ import annotations

import errno
import functools
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

import pyfuse3

from holdfast.base.errors import HoldfastError

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger("holdfast.fusefs")
_QUIET = 60.0
_REMEMBERED = 1000


class _Repeats:
    """A copy program that meets a damaged chunk asks for it many times; the log says it once a minute."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def is_news(self, text: str) -> bool:
        now = time.monotonic()
        if now - self._said.get(text, -_QUIET) < _QUIET:
            return False
        if len(self._said) >= _REMEMBERED:
            self._said.clear()
        self._said[text] = now
        return True


_repeats = _Repeats()


def handler(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Let FUSEError pass; log everything else and raise EIO instead."""

    @functools.wraps(function)
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except (
            HoldfastError
        ) as error:  # damage, or trouble of the store or a guest's: the message has path or ID
            if _repeats.is_news(str(error)):
                _log.error("%s: answered EIO: %s", function.__name__, error)
            raise pyfuse3.FUSEError(errno.EIO) from None
        except Exception:  # noqa: BLE001  that is what this is for
            _log.exception("%s failed: answered EIO", function.__name__)
            raise pyfuse3.FUSEError(errno.EIO) from None

    return guarded
