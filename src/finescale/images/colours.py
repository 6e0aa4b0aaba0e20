"""What files say of their colours without a profile: in chunks of PNG (ISO/IEC 15948), or in nclx of HEIF.

Both are carried along as chunks, which stand in a PNG as they are.
"""

import io
import struct
import zlib
from typing import BinaryIO

RESOLUTION = b"pHYs"
_COLOUR = {b"cICP": 4, b"sRGB": 1, b"gAMA": 4, b"cHRM": 32}  # and their bytes
_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)  # cHRM: white, red, green, blue, times 100 000
_GAMMA = 45455  # gAMA of sRGB


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk as it stands in a PNG file."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(name)))


def chunks_of(file: BinaryIO) -> dict[bytes, bytes]:
    """Those of colour and resolution before the samples of a PNG file: the first of each name, if it is sound."""
    file.seek(8)
    found: dict[bytes, bytes] = {}
    for _ in range(4096):
        head = file.read(8)
        size, name = struct.unpack(">I4s", head) if len(head) == 8 else (0, b"IDAT")
        if name == b"IDAT":
            break
        if name not in _COLOUR and name != RESOLUTION:
            file.seek(size + 4, io.SEEK_CUR)
            continue
        rest = file.read(min(size, 32) + 4)
        if head + rest == chunk(name, rest[:-4]) and size == _COLOUR.get(name, 9):
            found.setdefault(name, rest[:-4])
    return found


def of_png(chunks: dict[bytes, bytes]) -> bytes | None:
    """The chunks of colour, one after the other."""
    return b"".join(chunk(name, chunks[name]) for name in _COLOUR if name in chunks) or None


def of_heif(head: bytes) -> bytes | None:
    """The colours of a HEIC or AVIF file that begins so, where they are not those of sRGB."""
    place = head.find(b"colrnclx") + 8
    if place < 8 or len(head) < place + 4:
        return None
    primaries, transfer = struct.unpack_from(">HH", head, place)
    if max(primaries, transfer) > 255:
        return None
    found = chunk(b"cICP", bytes([primaries, transfer, 0, 1]))  # decoded as RGB over the full range
    return None if is_srgb(found) else found


def is_srgb(colours: bytes) -> bool:
    """Whether chunks say sRGB, as nearly as libpng asks for; what is unspecified (2, in cICP) is taken for it."""
    found = chunks_of(io.BytesIO(bytes(8) + colours))
    if b"cICP" in found:  # goes before the others
        primaries, transfer = found[b"cICP"][:2]
        return primaries in (1, 2) and transfer in (1, 2, 6, 13)  # 1 and 6 (BT.709, BT.601) are shown as sRGB
    if b"sRGB" in found:
        return True
    gamma = struct.unpack(">I", found.get(b"gAMA", struct.pack(">I", _GAMMA)))[0]
    places = struct.unpack(">8I", found.get(b"cHRM", struct.pack(">8I", *_SRGB)))
    return abs(gamma / _GAMMA - 1) <= 0.05 and all(abs(a - b) <= 1000 for a, b in zip(places, _SRGB))
