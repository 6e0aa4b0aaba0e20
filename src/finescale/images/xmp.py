"""XMP, and the texts of PNG: what programs and people say of a picture, carried along.

An XMP block (ISO 16684-1) is XML. What it says of the pixels of one file, or of parts of a file that are not carried
along, is cut out; every other byte stays as it is, also the wrapper and its room for changes. A block that cannot be
understood is left out. Entities are never expanded, and nothing is fetched.
"""

import io
import re
import struct
import zlib
from contextlib import suppress
from typing import BinaryIO
from xml.parsers import expat

from finescale.images.colours import chunk

KEY = b"XML:com.adobe.xmp"
_LARGEST = 1 << 22  # bytes of a block, and of all texts
_MOST_CHUNKS = 1 << 20  # 8 GiB of samples, as libpng cuts them

# Namespaces of what lies elsewhere in a file (gain maps, depth, motion, the rest of a long block) or counts its pixels
# (panoramas), as phones write them, and of thumbnails
_ELSEWHERE = re.compile(
    r"http://ns\.(adobe\.com/(hdr-|xmp/note/|xap/1\.0/g/img/)|apple\.com/|\w+\.com/(photos|videos)/)"
)
_RDF = b"http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_TIFF = "http://ns.adobe.com/tiff/1.0/"
_OF_TIFF = {"Make", "Model", "Software", "Artist", "Copyright", "ImageDescription", "DateTime"}  # the rest is pixels
_PIXELS = {
    "http://ns.adobe.com/exif/1.0/": {
        *("PixelXDimension", "PixelYDimension", "SubjectArea", "SubjectLocation", "NativeDigest"),
        *("ColorSpace", "ComponentsConfiguration", "CompressedBitsPerPixel"),
    },
    "http://ns.adobe.com/xap/1.0/": {"Thumbnails"},
    "http://ns.adobe.com/photoshop/1.0/": {"ColorMode", "ICCProfile"},
    "http://iptc.org/std/Iptc4xmpExt/2008-02-29/": {"ImageRegion"},  # also in pixels
    "http://purl.org/dc/terms/": {"provenance"},  # names a C2PA manifest in the file
}
# Of places in the picture, in shares of its sides: faces, and the crop and masks of Camera Raw
_PLACES = (
    *("http://www.metadataworkinggroup.com/schemas/regions/", "http://ns.microsoft.com/photo/1.2/"),
    "http://ns.adobe.com/camera-raw-settings/1.0/",
)
_ATTRIBUTE = re.compile(rb"""\s+([^\s=]+)\s*=\s*("[^"]*"|'[^']*')""")
_TAG = re.compile(rb"""<[^\s/>]+(\s+[^\s=]+\s*=\s*("[^"]*"|'[^']*'))*\s*/?>""")

# Keys of PNG texts that are XMP, other metadata in hexadecimal, or what ImageMagick and thumbnailers say of the pixels
_NOT_KEPT = (KEY, b"Raw profile type ", b"exif:", b"tiff:", b"png:", b"jpeg:", b"Thumb::")


def kept(block: object, turned: bool = False) -> bytes | None:
    """What of an XMP block stays true of the picture at another size, in another file.

    Args:
        block: as files hold it, in UTF-8.
        turned: whether the picture has been turned upright; then places in it are not kept either.

    Returns:
        None where that is nothing, or where the block cannot be understood or is larger than 4 MiB.
    """
    if not isinstance(block, bytes) or len(block) > _LARGEST or _RDF not in block:
        return None
    block = block.rstrip(b"\0")
    editor = _Editor(block, turned)
    try:
        block.decode()  # expat would take UTF-16, too
        editor.parser.Parse(block, True)
    except (expat.ExpatError, ValueError):
        return None
    ends = [0, *(place for cut in editor.cuts for place in cut), len(block)]
    return b"".join(block[a:b] for a, b in zip(ends[::2], ends[1::2])) if editor.rest else None


class _Editor:
    """Finds the bytes to be cut out of a block while `parser` reads it; `rest`: whether a property remains."""

    def __init__(self, block: bytes, turned: bool) -> None:
        self.block, self.turned, self.rest = block, turned, False
        self.cuts: list[tuple[int, int]] = []
        self._depth, self._tag = 0, (0, 0)  # within an element that is cut out; where its first tag begins and ends
        self._declared: set[bytes] = set()  # prefixes of the next element that nothing will use
        self.parser = parser = expat.ParserCreate("UTF-8", "\n")
        parser.namespace_prefixes = True  # names are namespace, name and prefix
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartNamespaceDeclHandler = self._declare
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end

    def _refuse(self, *_: object) -> None:
        raise ValueError("XMP has no document type, which could define entities")

    def _goes(self, name: str) -> bool:
        space, name = name.split("\n")[:2] if "\n" in name else ("", name)
        if _ELSEWHERE.match(space) or (self.turned and space.startswith(_PLACES)):
            return True
        goes = name not in _OF_TIFF if space == _TIFF else name in _PIXELS.get(space, ())
        self.rest |= not goes and not space.startswith(("http://www.w3.org/", "adobe:ns:meta/")) and space != ""
        return goes

    def _declare(self, prefix: str | None, space: str) -> None:
        if prefix and _ELSEWHERE.match(space):
            self._declared.add(f"xmlns:{prefix}".encode())

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        gone, self._declared = self._declared, set()
        place = self.parser.CurrentByteIndex
        if self._depth or self._goes(name):
            self._depth += 1
            if self._depth == 1:
                self._tag = place, self._tag_end(place)
            return
        gone |= {":".join(key.split("\n")[:0:-1]).encode() for key in attributes if self._goes(key)}
        if gone:
            found = _ATTRIBUTE.finditer(self.block, place, self._tag_end(place))
            self.cuts += [one.span() for one in found if one[1] in gone]

    def _end(self, _: str) -> None:
        self._depth -= self._depth > 0
        place, (first, last) = self.parser.CurrentByteIndex, self._tag
        if last and not self._depth:
            empty = self.block[last - 2 : last] == b"/>"
            self.cuts.append((first, last if empty else self.block.index(b">", place) + 1))
            self._tag = 0, 0

    def _tag_end(self, place: int) -> int:
        found = _TAG.match(self.block, place)
        if found is None:
            raise ValueError("no tag")
        return found.end()


def of_png(file: BinaryIO) -> tuple[bytes | None, bytes | None]:
    """The XMP block of a PNG file, and its texts: the chunks, one after the other, as they stand in the file.

    Both may stand behind the samples, too, where exiftool and ImageMagick put them.
    """
    file.seek(8)
    block, texts, room = None, [], _LARGEST
    for _ in range(_MOST_CHUNKS):
        head = file.read(8)
        size, name = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"IEND")
        if name == b"IEND":
            break
        if name not in (b"tEXt", b"zTXt", b"iTXt") or size > room:
            file.seek(size + 4, io.SEEK_CUR)
            continue
        rest = file.read(size + 4)
        data = rest[:-4]
        whole, key = chunk(name, data), data.partition(b"\0")[0]
        if head + rest != whole:
            continue
        if key == KEY and name == b"iTXt" and block is None:
            block = _text(data[len(KEY) + 1 :])
        elif 0 < len(key) < 80 and b"\0" in data and not key.startswith(_NOT_KEPT):
            texts.append(whole)
            room -= len(whole)
    return block, b"".join(texts) or None


def _text(data: bytes) -> bytes | None:
    """The text of an iTXt chunk behind its key: flag and method of compression, language, translated key, text."""
    text = data[2:].split(b"\0", 2)[-1]
    if data[:1] == b"\1":
        with suppress(zlib.error):
            return zlib.decompressobj().decompress(text, _LARGEST + 1)
        return None
    return text


def in_png(block: bytes) -> bytes:
    """The chunk of an XMP block in a PNG file."""
    return chunk(b"iTXt", KEY + b"\0\0\0\0\0" + block)
