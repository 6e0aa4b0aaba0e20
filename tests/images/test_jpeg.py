"""How strongly a JPEG was compressed."""

from pathlib import Path

import pytest
from PIL import Image

from finescale.images.jpeg import quality

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
