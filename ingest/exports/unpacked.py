"""Unpacks compressed files into unlinked temporary files."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Final

import zstandard

from holdfast.base.durable_files import write_all
from holdfast.base.errors import Refused, SourceError
from holdfast.base.processes import how_it_ended, last_words
from holdfast.base.types import ProgressFunction
from holdfast.formats.disks.base.errors import ImageDamaged
from holdfast.formats.disks.base.files import OpenFile
from holdfast.formats.disks.base.image import ImageFile

_READ: Final = 1 << 20
_WINDOW: Final = 128 << 20
"""Largest window of a zstd frame in bytes; the zstd program has the same limit without --long=31."""
_PIECE: Final = 1 << 10
"""zstd is fed in pieces: a block of 4 bytes can stand for 128 KiB, so that one piece makes 32 MiB at most."""
_MEMBERS: Final = 16 << 10
"""gzip is: an empty member has 20 bytes, and what follows each in its piece is copied."""
_RESERVE: Final = 256 << 20
"""Bytes that stay free in the scratch directory."""
_CHECK_ROOM: Final = 64 << 20


class UnpackedFile(OpenFile):
    """A temporary file without a name; closing it frees its space."""

    def __init__(self, scratch: Path, name: str, limit: int | None = None) -> None:
        """`limit` in bytes; None for what the scratch folder takes."""
        try:
            handle, path = tempfile.mkstemp(prefix=".holdfast-unpacked-", dir=scratch)
        except OSError as error:
            raise SourceError(f"cannot unpack into {scratch}: {error.strerror}") from error
        self._handle = handle
        self._scratch = scratch
        self._room_checked = 0
        self._limit = limit
        self.written = 0
        self._pending: list[bytes] = []
        self._pending_size = 0
        try:
            super().__init__(Path(path), name=name, follow_links=False)
        except SourceError:
            os.close(handle)
            raise
        finally:
            Path(path).unlink()

    def write(self, data: bytes) -> None:
        """Append; small pieces are collected. Raises SourceError when the scratch folder is full, or would
        be."""
        self._pending.append(data)
        self._pending_size += len(data)
        if self._pending_size >= _READ:
            self._write_pending()

    def _write_pending(self) -> None:
        if self._limit is not None and self.written + self._pending_size > self._limit:
            raise SourceError(
                f"{self.name} unpacks to more than {self._limit} bytes, more than a disk of the capacity in "
                "its descriptor can have; nothing was stored"
            )
        data = b"".join(self._pending)
        self._pending.clear()
        self._pending_size = 0
        if self.written + len(data) >= self._room_checked:
            room = os.fstatvfs(self._handle)
            if room.f_bavail * room.f_frsize < _RESERVE + _CHECK_ROOM + len(data):
                raise SourceError(
                    f"{self.name} cannot be unpacked: {self._scratch} has too little room after "
                    f"{self.written >> 20} MiB; TMPDIR can name a larger one"
                )
            self._room_checked = self.written + len(data) + _CHECK_ROOM
        try:
            write_all(self._handle, data)
        except OSError as error:
            raise SourceError(f"cannot unpack into {self._scratch}: {error.strerror}") from error
        self.written += len(data)

    def finish(self) -> None:
        """Write the collected bytes. After that the file can be read."""
        self._write_pending()
        self.size = self.written
        self.status = os.fstat(self._handle)
        os.close(self._handle)
        self._handle = -1

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1
        super().close()


def unpack(
    file: ImageFile,
    packing: str,
    scratch: Path | None,
    name: str,
    progress: ProgressFunction,
    *,
    limit: int | None = None,
) -> UnpackedFile:
    """Unpack a whole file (`gz`, `zst`, `lzo`) into `scratch`; progress counts bytes of the packed file.

    `limit` is in unpacked bytes: SourceError beyond it. Raises Refused without a scratch directory,
    ImageDamaged for a damaged or truncated file, SourceError when there is no space or no `lzop` program. The
    caller closes the file.
    """
    if scratch is None:
        raise Refused(f"{file.name} is compressed, and there is no folder to unpack it into")
    unpacked = UnpackedFile(scratch, name, limit)
    try:
        _UNPACKERS[packing](file, unpacked.write, progress)
        unpacked.finish()
    except BaseException:
        unpacked.close()
        raise
    return unpacked


def _gunzip(file: ImageFile, write: Callable[[bytes], None], progress: ProgressFunction) -> None:
    stream = zlib.decompressobj(wbits=31)
    at = 0
    for data in _pieces(file, progress):
        for start in range(0, len(data), _MEMBERS):
            left = data[start : start + _MEMBERS]
            while left:
                if stream.eof:
                    stream = zlib.decompressobj(wbits=31)
                try:
                    write(stream.decompress(left, _READ))
                except zlib.error as error:
                    raise ImageDamaged(file.name, f"gzip: {error}", offset=at + start) from error
                left = stream.unused_data if stream.eof else stream.unconsumed_tail
        at += len(data)
    # The decompressor may still hold up to one buffer of output.
    while not stream.eof and (rest := _flushed(file, stream, at)):
        write(rest)
    if not stream.eof:
        raise ImageDamaged(file.name, "the gzip stream is cut off", offset=at)


def _flushed(file: ImageFile, stream: zlib._Decompress, at: int) -> bytes:
    try:
        return stream.decompress(b"", _READ)
    except zlib.error as error:
        raise ImageDamaged(file.name, f"gzip: {error}", offset=at) from error


def _unzstd(file: ImageFile, write: Callable[[bytes], None], progress: ProgressFunction) -> None:
    decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
    stream = decompressor.decompressobj()
    at = 0
    for data in _pieces(file, progress):
        for start in range(0, len(data), _PIECE):
            left = data[start : start + _PIECE]
            while left:
                if stream.eof:
                    stream = decompressor.decompressobj()
                try:
                    write(stream.decompress(left))
                except zstandard.ZstdError as error:
                    raise ImageDamaged(file.name, str(error), offset=at + start) from error
                left = stream.unused_data if stream.eof else b""
        at += len(data)
    if not stream.eof:
        raise ImageDamaged(file.name, "the zstd frame is cut off", offset=at)


def _unlzo(file: ImageFile, write: Callable[[bytes], None], progress: ProgressFunction) -> None:
    """Unpack by `lzop`, the only program for its file format. It gets the bytes by a pipe and no path."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                ["lzop", "--decompress", "--stdout"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise SourceError(
                f"{file.name} needs the program lzop, which cannot be run: {error.strerror}"
            ) from error
        assert process.stdin is not None
        assert process.stdout is not None
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):  # more than this user may have
                fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _READ)
        trouble: list[SourceError] = []
        feeder = threading.Thread(target=_feed, args=(file, process.stdin, progress, trouble))
        feeder.start()
        try:
            _drain(process.stdout, write)
        except BaseException:
            process.kill()
            raise
        finally:
            feeder.join()
            process.stdout.close()
            process.wait()
        if trouble:
            raise trouble[0]
        if process.returncode:
            said = f"lzop {how_it_ended(process.returncode)}: {last_words(errors)}"
            raise ImageDamaged(file.name, said, offset=0)


def _feed(file: ImageFile, pipe: IO[bytes], progress: ProgressFunction, trouble: list[SourceError]) -> None:
    """Feed lzop in a thread, because it reads and writes at the same time; append errors to `trouble`."""
    try:
        # If lzop ended early, its exit status tells why.
        with suppress(BrokenPipeError), pipe:
            for data in _pieces(file, progress):
                pipe.write(data)
    except SourceError as error:
        trouble.append(error)


def _drain(stream: IO[bytes], write: Callable[[bytes], None]) -> None:
    while data := stream.read(_READ):
        write(data)


def _pieces(file: ImageFile, progress: ProgressFunction) -> Iterator[bytes]:
    for start in range(0, file.size, _READ):
        buffer = bytearray(min(_READ, file.size - start))
        try:
            count = file.read_into(memoryview(buffer), start)
        except OSError as error:
            raise SourceError(f"cannot read {file.name}: {error.strerror}") from error
        if count != len(buffer):
            raise ImageDamaged(file.name, "the file ended early: it shrank", offset=start + count)
        yield bytes(buffer)
        progress(count)


_UNPACKERS: Final[dict[str, Callable[[ImageFile, Callable[[bytes], None], ProgressFunction], None]]] = {
    "gz": _gunzip,
    "zst": _unzstd,
    "lzo": _unlzo,
}
PACKINGS: Final = tuple(_UNPACKERS)
