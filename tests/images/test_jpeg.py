"""How strongly a JPEG was compressed, and how many views it holds."""

import io
import struct
from pathlib import Path

import pytest
from PIL import Image

from finescale.images.files import read
from finescale.images.jpeg import quality, views

GREY = Image.new("L", (8, 8), 100)


@pytest.mark.parametrize("wanted", [15, 40, 50, 75, 90, 95])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_as_it_was_written(tmp_path: Path, wanted: int, mode: str) -> None:
    GREY.convert(mode).save(tmp_path / "a.jpg", quality=wanted)
    assert quality(tmp_path / "a.jpg") == wanted


@pytest.mark.parametrize("content", [b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xdb\x00\x43\x00" + bytes(9), b"GIF89a"])
def test_what_is_no_jpeg(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    assert quality(tmp_path / "a.jpg") is None
    assert quality(tmp_path / "gone.jpg") is None
    GREY.save(tmp_path / "a.png")
    assert quality(tmp_path / "a.png") is None


def mpo(kind: int) -> bytes:
    """Two pictures, the second of this kind (CIPA DC-007, 5.2.3.3)."""
    buffer = io.BytesIO()
    GREY.save(buffer, "MPO", save_all=True, append_images=[GREY])
    data = bytearray(buffer.getvalue())
    order = "<" if data[data.index(b"MPF\0") + 4 :].startswith(b"II") else ">"
    entry = data.index(struct.pack(f"{order}HHI", 0xB002, 7, 32)) + 8
    place = data.index(b"MPF\0") + 4 + struct.unpack_from(f"{order}I", data, entry)[0] + 16
    struct.pack_into(f"{order}I", data, place, kind)
    return bytes(data)


@pytest.mark.parametrize(
    ("kind", "name", "wanted"),
    [
        (0, "a.jpg", 1),  # a gain map
        (0, "a.mpo", 2),
        (0x10001, "a.mpo", 1),  # a preview
        (0x20001, "a.jpg", 2),  # of a panorama
        (0x20002, "a.mpo", 2),
    ],
)
def test_views_of_a_scene(tmp_path: Path, kind: int, name: str, wanted: int, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / name).write_bytes(mpo(kind))
    read(tmp_path / name)
    assert caplog.messages == (
        [f"{tmp_path / name}: has several frames or pages; only the first is read"] * (wanted - 1)
    )


def test_damaged_lists_of_views_do_no_harm() -> None:
    data = mpo(0x20002)
    start = data.index(b"MPF\0")
    for place in range(start, start + 90):
        assert views(io.BytesIO(data[:place]), named=True) in (1, 2)
        assert views(io.BytesIO(data[:place] + b"\xff" + data[place + 1 :]), named=True) >= 1
