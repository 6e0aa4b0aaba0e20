"""EXIF: the tags a camera wrote, as bytes that are carried along, and as TIFF directories to be read and rebuilt.

An EXIF block is a small TIFF file (Exif 2.32, section 4.5): a byte order, a main directory, and two sub-directories
for the camera (the Exif IFD, 34665) and the place (the GPS IFD, 34853). Blocks are kept byte for byte where possible;
only the orientation is reset (the pixels have been turned) and the embedded thumbnail, which would not be turned, is
unlinked.
"""

import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import BinaryIO

HEADER = b"Exif\0\0"
ORIENTATION, WIDTH, HEIGHT, EXIF_IFD, GPS_IFD = 0x0112, 0xA002, 0xA003, 34665, 34853
_WIDTH, _HEIGHT, _ACROSS, _DOWN = 0x0100, 0x0101, 0x011A, 0x011B  # of the main directory: the size, the resolution
# Tags that describe the pixels of one TIFF file or point into it, the place of its pixels on earth (GeoTIFF), and other
# blocks of metadata (XMP, IPTC, Photoshop's, ImageJ's), which say the size again; everything else is about the picture.
LAYOUT = (
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, ORIENTATION, 277, 278, 279, 280, 281, 282, 283, 284}
    | {288, 289, 290, 291, 292, 293, 296, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336}
    | {338, 339, 340, 341, 342, 347, 512, 513, 514, 529, 530, 531, 532, 34675, 37724, EXIF_IFD, GPS_IFD}
    | {33550, 33922, 34264, 34735, 34736, 34737, 700, 33723, 34377, 50838, 50839}
)
_DESCRIPTION = 270
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

_LARGEST = 1 << 24  # bytes of values in one directory: entries may all point to the same place
_INTEROPERABILITY = 0xA005  # points to a directory that is not carried along

Entry = tuple[int, int, bytes]  # type, count, values in the byte order of the whole
Directory = dict[int, Entry]


@dataclass
class Tags:
    """The tags about a picture: byte order ("<" or ">"), the main directory and the two sub-directories."""

    order: str = "<"
    main: Directory = field(default_factory=dict)
    exif: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)


def read_directory(file: BinaryIO, start: int, order: str, big: bool) -> Directory:
    """One directory of a TIFF or BigTIFF file; entries that point outside the file are left out."""
    file.seek(start)
    (count,) = struct.unpack(order + ("Q" if big else "H"), file.read(8 if big else 2))
    length, layout = (20, order + "HHQ8s") if big else (12, order + "HHI4s")
    entries = [struct.unpack(layout, file.read(length)) for _ in range(min(count, 4096))]
    found: Directory = {}
    room = _LARGEST
    for tag, kind, number, value in entries:
        size = _SIZES.get(kind, 0) * number
        if 0 < size <= len(value):
            found[tag] = (kind, number, value[:size])
        elif 0 < size <= room:
            room -= size
            with suppress(OSError, OverflowError):  # beyond what any file holds
                file.seek(struct.unpack(order + ("Q" if big else "I"), value)[0])
                data = file.read(size)
                if len(data) == size:
                    found[tag] = (kind, number, data)
    return found


def main_directory(file: BinaryIO) -> tuple[str, bool, Directory]:
    """Byte order, whether it is BigTIFF, and the main directory of a TIFF file.

    Raises:
        ValueError: this is not a TIFF structure.
    """
    try:
        file.seek(0)
        head = file.read(16)
        order = {b"II": "<", b"MM": ">"}[head[:2]]
        big = struct.unpack(order + "H", head[2:4])[0] == 43
        start = struct.unpack_from(order + ("Q" if big else "I"), head, 8 if big else 4)[0]
        return order, big, read_directory(file, start, order, big)
    except (struct.error, KeyError, OverflowError, OSError) as error:
        raise ValueError(f"not a TIFF structure ({error})") from error


def numbers(order: str, kind: int, count: int, data: bytes) -> list[float]:
    """The values of an entry of unsigned integers, fractions (infinite ones as 0) or floats; of others none."""
    if kind == 5:
        pairs = struct.unpack(f"{order}{2 * count}I", data)
        return [a / b if b else 0 for a, b in zip(pairs[::2], pairs[1::2])]
    code = {1: "B", 3: "H", 4: "I", 11: "f", 12: "d", 16: "Q"}.get(kind)
    return list(struct.unpack(f"{order}{count}{code}", data)) if code else []


def read_tags(file: BinaryIO) -> Tags:
    """The tags about the picture in a TIFF file or an EXIF block (without its header), pixel layout left out.

    A sub-directory that cannot be read costs only itself.

    Raises:
        ValueError: this is not a TIFF structure.
    """
    order, big, main = main_directory(file)

    def sub(tag: int) -> Directory:
        value = main[tag][2] if tag in main else b""
        try:
            start = struct.unpack(order + ("I" if len(value) == 4 else "Q"), value)[0]
            return read_directory(file, start, order, big)
        except (struct.error, OverflowError, OSError):  # there is none, or it would lie beyond the file
            return {}

    kept = {tag: entry for tag, entry in main.items() if tag not in LAYOUT}
    if _DESCRIPTION in kept and _of_microscopes(kept[_DESCRIPTION][2]):
        del kept[_DESCRIPTION]
    exif = {tag: entry for tag, entry in sub(EXIF_IFD).items() if tag != _INTEROPERABILITY}
    return Tags(order, kept, exif, sub(GPS_IFD))


def _of_microscopes(description: bytes) -> bool:
    """Whether it says sizes and units of the pixels, as ImageJ, OME-TIFF and tifffile write them in this place."""
    return description.startswith((b"ImageJ=", b'{"shape":')) or b"<OME" in description


def directories(tags: Tags, start: int, big: bool = False) -> bytes:
    """The main directory, ready to stand at offset `start` of a TIFF file, followed by the sub-directories."""
    main = dict(tags.main)
    tail = b""
    for tag, sub in ((EXIF_IFD, tags.exif), (GPS_IFD, tags.gps)):
        if sub:
            main[tag] = (4, 1, bytes(4))  # the place is taken; the offset is known once the main directory is laid out
    size = len(_directory(main, tags.order, start, big))
    for tag, sub in ((EXIF_IFD, tags.exif), (GPS_IFD, tags.gps)):
        if sub:
            place = start + size + len(tail)
            main[tag] = (16 if big else 4, 1, struct.pack(tags.order + ("Q" if big else "I"), place))
            tail += _directory(sub, tags.order, place, big)
    return _directory(main, tags.order, start, big) + tail


def _directory(entries: Directory, order: str, start: int, big: bool) -> bytes:
    number, offset = (order + "Q", order + "Q") if big else (order + "H", order + "I")
    slot = struct.calcsize(offset)
    length = struct.calcsize(number) + len(entries) * (20 if big else 12) + slot
    head, values = struct.pack(number, len(entries)), b""
    for tag, (kind, count, data) in sorted(entries.items()):
        head += struct.pack(order + ("HHQ" if big else "HHI"), tag, kind, count)
        if len(data) <= slot:
            head += data.ljust(slot, b"\0")
        else:
            head += struct.pack(offset, start + length + len(values))
            values += data + b"\0" * (len(data) % 2)
    return head + bytes(slot) + values


def from_tags(tags: Tags) -> bytes | None:
    """An EXIF block with its header, or None where there are no tags."""
    if not (tags.main or tags.exif or tags.gps):
        return None
    magic = b"II*\0" if tags.order == "<" else b"MM\0*"
    return HEADER + magic + struct.pack(tags.order + "I", 8) + directories(tags, 8)


def upright(block: bytes, size: tuple[int, int] | None = None) -> bytes | None:
    """An EXIF block of a picture stored upright: orientation 1, no thumbnail, and the size (width, height) if given.

    The two resolutions change places where width and height do. Other bytes stay as they are. The block may come with
    or without its header; the result has it. None where the block cannot be understood: better no EXIF than a picture
    that is turned twice.
    """
    data = bytearray(block.removeprefix(HEADER))
    new = {ORIENTATION: 1}
    if size is not None:
        new |= {WIDTH: size[0], HEIGHT: size[1], _WIDTH: size[0], _HEIGHT: size[1]}
    try:
        order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]

        def patch(start: int, main: bool) -> int:
            """Sets the known tags of one directory, and of the Exif IFD that `main` names; where its entries end."""
            exif = None
            turned, resolution = False, dict[int, int]()
            (count,) = struct.unpack_from(order + "H", data, start)
            for place in range(start + 2, start + 2 + 12 * count, 12):
                tag, kind = struct.unpack_from(order + "HH", data, place)
                if tag == EXIF_IFD:
                    (exif,) = struct.unpack_from(order + "I", data, place + 8)
                elif tag in (_ACROSS, _DOWN):
                    resolution[tag] = place + 2
                turned |= tag == ORIENTATION and struct.unpack_from(order + "H", data, place + 8)[0] in (5, 6, 7, 8)
                if tag in new and kind == 3 and new[tag] < 1 << 16:
                    struct.pack_into(order + "IHH", data, place + 4, 1, new[tag], 0)
                elif tag in new:
                    struct.pack_into(order + "HII", data, place + 2, 4, 1, new[tag])
            if turned and len(resolution) == 2:
                one, two = (slice(place, place + 10) for place in resolution.values())
                data[one], data[two] = data[two], data[one]
            if main and exif is not None:
                patch(exif, False)
            return start + 2 + 12 * count

        end = patch(struct.unpack_from(order + "I", data, 4)[0], True)
        if end + 4 <= len(data):
            struct.pack_into(order + "I", data, end, 0)
    except (struct.error, KeyError):
        return None
    return HEADER + bytes(data)
