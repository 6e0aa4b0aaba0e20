"""How a JPEG was compressed, and how many views and scans it holds."""

import io
import re
import struct
from pathlib import Path

import pytest
from PIL import Image

from finescale.errors import FinescaleError
from finescale.images.files import probe, read
from finescale.images.jpeg import SCANS, excess, quality, views
from finescale.images.strips import StripReader

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


def with_scans(count: int, *, lying: bytes = b"", **options: bool) -> bytes:
    """A JPEG of 24 x 16 pixels of one colour with so many scans, all but the first ones of nothing.

    Args:
        count: of all scans.
        lying: what stands before the last marker of each scan.
        options: of Pillow's encoder.
    """
    buffer = io.BytesIO()
    Image.new("L", (24, 16), 128).save(buffer, "JPEG", **options)
    data = buffer.getvalue()
    places = [found.start() for found in re.finditer(b"\xff\xda", data)]
    scan = b"\xff\xda\0\x08\1\1\0\1\x05\0"  # coefficients 1 to 5
    return data[:-2] + (lying + scan) * (count - len(places)) + b"\xff\xd9"


def test_more_scans_than_any_program_writes_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    most = with_scans(SCANS, progressive=True)
    assert read(most).size == (24, 16)
    for more in (
        with_scans(SCANS + 1, progressive=True),
        with_scans(15_000, progressive=True),
        with_scans(SCANS + 1, progressive=True, lying=b"\xff\xff\0\xff\xd3\xff\1\xff"),  # what a decoder skips
        with_scans(SCANS + 1, progressive=True, lying=b"\xff\2\xfe\0"),  # within a scan it skips that, too
    ):
        path.write_bytes(more)
        for open_it in (read, probe, StripReader, lambda _, data=more: read(data)):
            with pytest.raises(
                FinescaleError, match=f"^(the picture|.*a.jpg): has more than {SCANS} scans; no program"
            ):
                open_it(path)
    assert excess(io.BytesIO(most[:2] + b"\xff\xfe\0\2" * 20_000 + most[2:])) == "more than 20000 parts"


def test_scans_that_no_decoder_comes_to_do_not_count() -> None:
    sequential = with_scans(15_000)  # its first scan holds all there is, so that libjpeg ends after it
    assert excess(io.BytesIO(sequential)) is None
    assert read(sequential).size == (24, 16)
    behind = with_scans(3, progressive=True) + with_scans(15_000, progressive=True)  # as a film behind a photograph
    assert excess(io.BytesIO(behind)) is None
    assert read(behind).size == (24, 16)
    hidden = b"\xff\xfe\xff\xff" + b"\xff\xda" * 32766 + b"\0"  # a comment
    assert excess(io.BytesIO(behind[:2] + hidden + behind[2:])) is None


def test_sequential_colours_in_scans_of_their_own_are_counted() -> None:
    """A decoder goes on to the end there: each scan could bring the next colour."""
    buffer = io.BytesIO()
    Image.new("RGB", (24, 16), (9, 99, 200)).save(buffer, "JPEG", subsampling=0)
    data = buffer.getvalue()
    start = data.index(b"\xff\xda")
    assert data[start + 4] == 3
    scan = b"\xff\xda\0\x08\1\1\0\0\x3f\0"
    assert excess(io.BytesIO(data[:start] + scan * SCANS + b"\xff\xd9")) is None
    assert excess(io.BytesIO(data[:start] + scan * (SCANS + 1) + b"\xff\xd9")) == f"more than {SCANS} scans"
