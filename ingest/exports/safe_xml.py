"""Parses untrusted XML: no document types, no entities, and limits on size, depth and counts.

Attackers have used entities to make expat read files and exhaust memory. No export needs entities, so a
document with a declaration is refused before it is parsed.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Final
from xml.etree.ElementTree import Element, ParseError, TreeBuilder, XMLParser

from holdfast.base.errors import SourceError

XML_LIMIT: Final = 8 << 20
"""Most bytes of a document."""
_DEPTH_LIMIT: Final = 64
_ELEMENT_LIMIT: Final = 100_000
_ATTRIBUTE_LIMIT: Final = 200
"""Most attributes of one element."""

_DECLARATION: Final = re.compile(r"\A\s*<\?xml\b[^>]*?\?>")
_ENCODING: Final = re.compile(r"""\bencoding\s*=\s*["']([A-Za-z0-9._-]*)["']""")
_MARKUP_DECLARATION: Final = re.compile(r"<!(?!--|\[CDATA\[)")


class _LimitedBuilder(TreeBuilder):
    """Builds an element tree. Raises SourceError when it becomes too deep or too large."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._depth = 0
        self._elements = 0

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        self._elements += 1
        if self._depth > _DEPTH_LIMIT or self._elements > _ELEMENT_LIMIT or len(attrs) > _ATTRIBUTE_LIMIT:
            raise SourceError(f"{self._name}: its XML is too deep or has too many elements or attributes")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def parse_xml(data: bytes, name: str) -> Element:
    """Parse a document in UTF-8 or UTF-16 and return its root. `name` is for messages. Raises SourceError."""
    if len(data) > XML_LIMIT:
        raise SourceError(f"{name} has {len(data)} bytes: too much for a definition ({XML_LIMIT} at most)")
    text = _decode(data, name)
    declaration = _MARKUP_DECLARATION.search(text)
    if declaration:
        raise SourceError(
            f"{name} declares a document type or entities (at character {declaration.start()}): refused"
        )
    parser = XMLParser(target=_LimitedBuilder(name), encoding="utf-8")
    try:
        parser.feed(_DECLARATION.sub("", text, count=1).encode())
        root = parser.close()
    except (ParseError, UnicodeError) as error:
        raise SourceError(f"{name} is not well-formed XML: {error}") from error
    assert isinstance(root, Element)
    return root


def _decode(data: bytes, name: str) -> str:
    encoding = "utf-8"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    elif data.startswith(codecs.BOM_UTF8):
        encoding = "utf-8-sig"
    elif data.startswith(b"<\0"):
        encoding = "utf-16-le"
    elif data.startswith(b"\0<"):
        encoding = "utf-16-be"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} is no XML in {encoding[:6].upper()}: {error.reason}") from error
    head = _DECLARATION.match(text)
    said = _ENCODING.search(head[0]) if head else None
    family = ("utf-16", "utf-16le", "utf-16be") if encoding.startswith("utf-16") else ("utf-8", "us-ascii")
    if said and said[1].lower() not in family:
        raise SourceError(f"{name} says it is in {said[1]!r}, which is not supported: save it in UTF-8")
    return text


def local(element: Element) -> str:
    """An element's name without its namespace, which differs between versions of OVF."""
    return element.tag.rpartition("}")[2]


def children(element: Element, *path: str) -> Iterator[Element]:
    """All descendants at a path of local names."""
    if not path:
        yield element
        return
    for child in element:
        if local(child) == path[0]:
            yield from children(child, *path[1:])


def text_of(element: Element, *path: str) -> str:
    """The text of the first descendant at a path, stripped; "" when there is none."""
    found = next(children(element, *path), None)
    return (found.text or "").strip() if found is not None else ""


def attribute(element: Element, name: str) -> str:
    """An attribute by its local name, stripped; "" when there is none."""
    for key, value in element.attrib.items():
        if key.rpartition("}")[2] == name:
            return value.strip()
    return ""
