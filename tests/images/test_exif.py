"""EXIF blocks and TIFF directories, in both byte orders, sound and damaged."""

import io
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from finescale.images.exif import HEADER, Tags, directories, from_tags, read_tags, upright
from finescale.images.files import read, write
from finescale.images.picture import Picture


def block(endian: str = "<") -> bytes:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112] = 6
    exif[0x010E] = "a description that is not short"
    exif.get_ifd(0x8769).update({0x9286: b"ASCII\0\0\0comment", 0xA002: 10, 0xA003: 20})
    exif.get_ifd(0x8825)[1] = "N"
    return exif.tobytes()


def parsed(data: bytes | None) -> tuple[dict[int, Any], dict[int, Any], dict[int, Any]]:
    assert data
    exif = Image.Exif()
    exif.load(data)
    main = {tag: value for tag, value in exif.items() if tag not in (0x8769, 0x8825)}
    return main, exif.get_ifd(0x8769), exif.get_ifd(0x8825)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("place", [5_000, 2**32 - 1])
def test_a_place_beyond_the_block_costs_nothing_else(tmp_path: Path, endian: str, place: int) -> None:
    data = bytearray(block(endian))
    where = data.index(struct.pack(f"{endian}HHI", 0x8825, 4, 1)) + 8
    data[where : where + 4] = struct.pack(f"{endian}I", place)
    tags = read_tags(io.BytesIO(data.removeprefix(HEADER)))
    assert not tags.gps
    assert 0x9286 in tags.exif
    write(Picture(np.zeros((4, 5, 3), np.uint8), exif=bytes(data)), tmp_path / "a.tif")
    assert parsed(read(tmp_path / "a.tif").exif)[0][0x010E] == "a description that is not short"


@pytest.mark.parametrize("endian", ["<", ">"])
def test_upright_changes_only_what_it_must(endian: str) -> None:
    before, after = block(endian), upright(block(endian))
    assert after is not None
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= 2
    assert parsed(after)[0][0x0112] == 1
    assert parsed(upright(before, (70_000, 300)))[1] == {**parsed(before)[1], 0xA002: 70_000, 0xA003: 300}
    assert upright(before.removeprefix(HEADER)) == after


@pytest.mark.parametrize("kind", [3, 4])
def test_the_size_in_the_main_directory_follows_too(kind: int) -> None:
    entry = {3: struct.pack("<HH", 7, 0), 4: struct.pack("<I", 7)}[kind]
    tags = Tags(main={0x0100: (kind, 1, entry), 0x0101: (kind, 1, entry), 0x0110: (2, 4, b"cam\0")})
    made = upright(b"II*\0" + struct.pack("<I", 8) + directories(tags, 8), (70_000, 300))
    assert parsed(made)[0] == {0x0100: 70_000, 0x0101: 300, 0x0110: "cam"}


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_two_resolutions_turn_with_the_picture(endian: str, orientation: int) -> None:
    exif = Image.Exif()
    exif.endian = endian
    exif[0x0112], exif[0x011A], exif[0x011B] = orientation, 300.0, 150.0
    made = upright(exif.tobytes())
    found = parsed(made)[0]
    assert (found[0x011A], found[0x011B]) == ((150, 300) if orientation > 4 else (300, 150))
    assert upright(made or b"") == made  # once


def test_the_thumbnail_is_unlinked() -> None:
    data = block()
    place = len(HEADER) + 8
    end = place + 2 + 12 * struct.unpack_from("<H", data, place)[0]
    linked = data[:end] + struct.pack("<I", 8) + data[end + 4 :]
    assert upright(linked) == upright(data)


@pytest.mark.parametrize("endian", ["<", ">"])
def test_tags_survive_being_rebuilt(endian: str) -> None:
    tags = read_tags(io.BytesIO(block(endian).removeprefix(HEADER)))
    main, camera, place = parsed(block(endian))
    del main[0x0112]  # belongs to the pixels of one file
    assert parsed(from_tags(tags)) == (main, camera, place)


@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_directories_at_any_place(endian: str, big: bool) -> None:
    tags = read_tags(io.BytesIO(block(endian).removeprefix(HEADER)))
    mark = b"II" if endian == "<" else b"MM"
    head = struct.pack(endian + "HHHQ", 43, 8, 0, 64) if big else struct.pack(endian + "HI", 42, 64)
    file = (mark + head).ljust(64, b"\0") + directories(tags, 64, big)
    assert read_tags(io.BytesIO(file)) == tags


@pytest.mark.parametrize("tag", [33550, 33922, 34264, 34735, 34736, 34737, 700, 33723, 34377])
def test_georeference_and_other_metadata_are_left_out(tag: int) -> None:
    tags = Tags(main={270: (2, 4, b"kept"), tag: (7, 8, bytes(8))})
    data = b"II*\0" + struct.pack("<I", 8) + directories(tags, 8)
    assert read_tags(io.BytesIO(data)).main == {270: (2, 4, b"kept")}


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        (b"ImageJ=1.54f\nimages=1\nunit=micron", False),
        (b'<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">', False),
        (b'{"shape": [4, 4]}', False),
        (b"a cell, opened with ImageJ", True),
    ],
)
def test_what_microscopes_say_of_other_pixels_is_left_out(words: bytes, kept: bool) -> None:
    tags = Tags(main={270: (2, len(words) + 1, words + b"\0"), 50838: (4, 2, bytes(8)), 50839: (1, 8, bytes(8))})
    found = read_tags(io.BytesIO(b"II*\0" + struct.pack("<I", 8) + directories(tags, 8))).main
    assert list(found) == ([270] if kept else [])


def test_no_tags_are_no_block() -> None:
    assert from_tags(read_tags(io.BytesIO(b"II*\0\x08\0\0\0" + bytes(6)))) is None


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, about what is cut off
@pytest.mark.parametrize("length", range(0, 120, 7))
def test_damaged_blocks_do_no_harm(length: int) -> None:
    data = block().removeprefix(HEADER)[:length]
    for damaged in (data, data + b"\xff" * 50, b"junk" + data):
        assert upright(damaged) is None or parsed(upright(damaged))[0].get(0x0112, 1) == 1
        with suppress(ValueError):
            read_tags(io.BytesIO(damaged))
    with pytest.raises(ValueError, match="TIFF"):
        read_tags(io.BytesIO(data[:8]))


def test_a_directory_that_points_to_itself_ends() -> None:
    loop = b"II*\0" + struct.pack("<IHHHIII", 8, 1, 0x8769, 4, 1, 8, 0)
    assert upright(loop) == b"Exif\0\0" + loop
    read_tags(io.BytesIO(loop))


def test_what_lies_beyond_any_file_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    far = 1 << 62  # further than file systems let one go
    path.write_bytes(struct.pack("<2sHHHQ", b"II", 43, 8, 0, far))
    with open(path, "rb") as file, pytest.raises(ValueError, match="TIFF"):
        read_tags(file)
    for tag in (40000, 0x8769):
        path.write_bytes(struct.pack("<2sHHHQQHHQQ", b"II", 43, 8, 0, 16, 1, tag, 7 if tag == 40000 else 16, 99, far))
        with open(path, "rb") as file:
            found = read_tags(file)
        assert (found.main, found.exif) == ({}, {})


def test_a_chain_of_directories_is_not_followed() -> None:
    # each names the next one twice: 2^40 directories for who follows them all
    size = 2 + 2 * 12 + 4
    block = b"II*\0" + struct.pack("<I", 8)
    for depth in range(40):
        to = 8 + (depth + 1) * size
        block += struct.pack("<H", 2) + struct.pack("<HHII", 0x8769, 4, 1, to) * 2 + bytes(4)
    assert upright(block + bytes(size)) == b"Exif\0\0" + block + bytes(size)


def test_values_of_a_directory_have_a_limit() -> None:
    # 200 tags that all point to the same megabyte
    head = b"II*\0" + struct.pack("<IH", 8, 200)
    tags = b"".join(struct.pack("<HHII", 40000 + k, 7, 1 << 20, 4096) for k in range(200))
    found = read_tags(io.BytesIO((head + tags + bytes(4)).ljust(4096, b"\0") + bytes(1 << 20)))
    assert sum(len(data) for _, _, data in found.main.values()) == 16 << 20
