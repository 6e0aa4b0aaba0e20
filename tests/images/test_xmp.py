"""XMP and the texts of PNG: kept from file to file where they stay true, and never a reason to fail."""

import io
import time
import zlib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from tests.images.test_files import exif, picture, samples, tags

from finescale.images import xmp
from finescale.images.colours import chunk
from finescale.images.files import read, write
from finescale.images.picture import Picture, from_pil, to_pil
from finescale.images.strips import StripReader, StripWriter

SPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "xmpGImg": "http://ns.adobe.com/xap/1.0/g/img/",
    "xmpNote": "http://ns.adobe.com/xmp/note/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "crs": "http://ns.adobe.com/camera-raw-settings/1.0/",
    "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
    "HDRGainMap": "http://ns.apple.com/HDRGainMap/1.0/",
    "Container": "http://ns.google.com/photos/1.0/container/",
    "Item": "http://ns.google.com/photos/1.0/container/item/",
    "GCamera": "http://ns.google.com/photos/1.0/camera/",
    "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
    "GPano": "http://ns.google.com/photos/1.0/panorama/",
    "OpCamera": "http://ns.oplus.com/photos/1.0/camera/",
    "Device": "http://ns.google.com/photos/dd/1.0/device/",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
}
HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="any">'
TAIL = "</x:xmpmeta>" + "\n".ljust(300) + '<?xpacket end="w"?>'
WORDS = """<dc:subject><rdf:Bag><rdf:li>sea &amp; caf\u00e9 \u4e2d</rdf:li><rdf:li>dog</rdf:li></rdf:Bag></dc:subject>
<dc:rights><rdf:Alt><rdf:li xml:lang="x-default">CC BY</rdf:li></rdf:Alt></dc:rights>"""


def block(attributes: str = "", elements: str = "") -> bytes:
    """An XMP block with a rating, a camera, keywords and a licence, and with what is given beside them."""
    text = f"{attributes} {WORDS} {elements} xmp:Rating tiff:Make"
    used = [prefix for prefix in SPACES if f"{prefix}:" in text and prefix != "rdf"]
    spaces = " ".join(f'xmlns:{prefix}="{SPACES[prefix]}"' for prefix in used)
    rdf = f'<rdf:RDF xmlns:rdf="{SPACES["rdf"]}">'
    about = f"""<rdf:Description rdf:about="" {spaces} xmp:Rating="4" {attributes} tiff:Make='C>/' >"""
    return f"{HEAD}{rdf}{about}{WORDS}{elements}</rdf:Description></rdf:RDF>{TAIL}".encode()


def said(data: bytes | None) -> list[tuple[str, dict[str, str], str]]:
    """What a block says, element by element, without what declares names."""
    assert data
    return [(one.tag, one.attrib, (one.text or "").strip()) for one in ElementTree.fromstring(data).iter()]


PLAIN = said(block())
# every property that would not be true of the enlarged picture
ATTRIBUTES = """tiff:Orientation="6" tiff:ImageWidth = '53'
  tiff:XResolution="72/1" exif:PixelXDimension="53" exif:ColorSpace="1" photoshop:ICCProfile="a > b 'c'"
  hdrgm:Version="1.0" GCamera:MotionPhoto="1" GPano:FullPanoWidthPixels="53" xmpNote:HasExtendedXMP="0123"
  HDRGainMap:HDRGainMapVersion="65536" OpCamera:VideoLength="99" dcterms:provenance="self#jumbf=c2pa" """
ELEMENTS = """<tiff:Orientation>8</tiff:Orientation>
<tiff:BitsPerSample><rdf:Seq><rdf:li>8</rdf:li></rdf:Seq></tiff:BitsPerSample>
<tiff:ImageLength/><exif:PixelYDimension >37</exif:PixelYDimension ><exif:SubjectArea><rdf:Seq/></exif:SubjectArea>
<xmp:Thumbnails><rdf:Alt><rdf:li rdf:parseType="Resource">
<xmpGImg:image>/9j/</xmpGImg:image></rdf:li></rdf:Alt></xmp:Thumbnails>
<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Mime="image/jpeg" Item:Length="1"/>
</rdf:li></rdf:Seq></Container:Directory><GDepth:Data>AAAA</GDepth:Data><Device:Container><Device:a/></Device:Container>"""


@pytest.mark.parametrize(("attributes", "elements"), [(ATTRIBUTES, ""), ("", ELEMENTS), (ATTRIBUTES, ELEMENTS)])
def test_what_is_not_true_of_the_result_is_cut_out_and_nothing_else(attributes: str, elements: str) -> None:
    found = xmp.kept(block(attributes, elements))
    assert found
    assert said(found) == PLAIN
    assert found.startswith(HEAD.encode())
    assert found.endswith(TAIL.encode())
    assert WORDS.encode() in found
    for word in (b"hdr-gain-map", b"ns.google.com", b"ns.apple.com"):  # nor are they declared
        assert word not in found
    assert xmp.kept(found) == found


def test_other_prefixes_and_names_that_only_look_so() -> None:
    other = block('lr:Orientation="6"', "<dc:Thumbnails>1</dc:Thumbnails>").replace(b"tiff:", b"T:")
    other = other.replace(b"xmlns:tiff", b"xmlns:T").replace(b"T:Make", b"T:Orientation='3' T:Make")
    found = xmp.kept(other)
    assert found == other.replace(b" T:Orientation='3'", b"")
    default = f'<R xmlns="{SPACES["rdf"]}"><Description xmlns:a="{SPACES["xmp"]}" a:Rating="1">'
    rest = "</Description></R>"
    made = f'{default}<Orientation xmlns="{SPACES["tiff"]}">6</Orientation>{rest}'
    assert xmp.kept(made.encode()) == (default + rest).encode()


def test_places_are_kept_only_in_a_picture_that_was_not_turned() -> None:
    faces = '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:RegionList/></mwg-rs:Regions>'
    given = block('crs:CropTop="0.1" lr:weightedFlatSubject="a"', faces)
    assert xmp.kept(given) == given
    assert said(xmp.kept(given, turned=True)) == said(block('lr:weightedFlatSubject="a"'))


def test_a_block_of_nothing_else_is_left_out() -> None:
    spaces = f'xmlns:hdrgm="{SPACES["hdrgm"]}" xmlns:tiff="{SPACES["tiff"]}"'
    only = f'<rdf:Description rdf:about="" {spaces} hdrgm:Version="1.0" tiff:Orientation="6"/>'
    assert xmp.kept(f'{HEAD}<rdf:RDF xmlns:rdf="{SPACES["rdf"]}">{only}</rdf:RDF>{TAIL}'.encode()) is None


ENTITIES = "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi"))
BAD = {
    "cut off": block()[:-200].rstrip()[:-5],
    "no XML": b"\xff\xd8\xff" + block(),
    "no XMP": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "UTF-16": block().decode().encode("utf-16"),
    "UTF-16 without a mark": block().decode().encode("utf-16-le"),
    "Latin-1": block().replace("\u00e9".encode(), b"\xe9"),
    "another code": b'<?xml version="1.0" encoding="cp037"?>' + block().decode().encode("cp037", "replace"),
    "a bomb": block().replace(b"<x:x", f'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">{ENTITIES}]><x:x'.encode(), 1),
    "a file": block().replace(b"<x:x", b'<!DOCTYPE x SYSTEM "file:///etc/hostname"><x:x', 1),
    "an unknown entity": block("", "<dc:title>&a;</dc:title>"),
    "an unknown prefix": block('none:a="1"'),
    "twice the same": block('xmp:Rating="5"'),
    "huge": block("", f"<dc:title>{'a' * (4 << 20)}</dc:title>"),
    "empty": b"",
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_blocks_are_left_out_and_never_an_error(tmp_path: Path, kind: str) -> None:
    assert xmp.kept(BAD[kind]) is None
    write(Picture(samples(3), xmp=BAD[kind]), tmp_path / "a.png")
    found = read(tmp_path / "a.png")
    assert found.xmp is None
    np.testing.assert_array_equal(found.pixels, samples(3))


def test_any_damaged_byte_is_no_error() -> None:
    data, random = block(ATTRIBUTES, ELEMENTS), np.random.default_rng(0)
    for place in random.choice(len(data), 600, replace=False):
        found = xmp.kept(data[:place] + random.bytes(1) + data[place + 1 :])
        assert found is None or expat.ParserCreate().Parse(found, True)


@pytest.mark.parametrize(
    "given",
    [
        block("", "<dc:a/>" * 250_000),
        block("", "<dc:a>" * 150_000 + "</dc:a>" * 150_000),
        block(" ".join(f'tiff:a{i}="1"' for i in range(100_000))),
        block("", "<tiff:a/>" * 200_000),
    ],
    ids=["wide", "deep", "many attributes", "many cuts"],
)
def test_time_goes_by_the_length(given: bytes) -> None:
    start = time.process_time()
    assert xmp.kept(given)
    assert time.process_time() - start < 10


# -- from file to file

GIVEN = block(ATTRIBUTES, ELEMENTS)
KEPT = xmp.kept(GIVEN)


def made(path: Path, orientation: int = 1) -> None:
    """A picture as other programs write it, with XMP."""
    image, block = Image.fromarray(samples(3)), exif(orientation)
    if path.suffix == ".tif":
        image.save(path, tiffinfo={0x0112: orientation, 700: GIVEN + b"\0"})
    elif path.suffix == ".png":
        texts = PngImagePlugin.PngInfo()
        texts.add_itxt("XML:com.adobe.xmp", GIVEN.decode(), zip=orientation > 1)
        image.save(path, pnginfo=texts, exif=block)
    else:
        image.save(path, xmp=GIVEN, exif=block)


@pytest.mark.parametrize("target", ["png", "tif", "jpg", "webp", "avif"])
@pytest.mark.parametrize("source", ["png", "tif", "jpg", "webp", "avif"])
def test_xmp_goes_from_every_format_to_every_other(tmp_path: Path, source: str, target: str) -> None:
    start, end = tmp_path / f"a.{source}", tmp_path / f"b.{target}"
    made(start)
    found = read(start)
    assert found.xmp == KEPT
    assert StripReader(start).layout.xmp == KEPT
    write(found, end)
    again = read(end)
    assert again.xmp == KEPT
    assert source == "tif" or tags(again.exif) == tags(exif())
    with Image.open(end) as image:
        image.load()
        assert said(image.info["xmp"]) == PLAIN
    if target in ("png", "tif"):
        strips = StripReader(start)
        with StripWriter(tmp_path / f"c.{target}", strips.layout) as out:
            out.write(0, strips.rows(0, 37))
        assert (tmp_path / f"c.{target}").read_bytes() == end.read_bytes()


@pytest.mark.parametrize("extension", ["png", "tif", "jpg"])
def test_nothing_is_turned_twice(tmp_path: Path, extension: str) -> None:
    made(tmp_path / f"a.{extension}", 6)
    found = read(tmp_path / f"a.{extension}")
    assert found.size == (37, 53)
    assert found.xmp == KEPT


@pytest.mark.parametrize("length", [65_504, 65_505])
def test_xmp_is_left_out_of_jpeg_where_it_is_too_large(
    tmp_path: Path, length: int, caplog: pytest.LogCaptureFixture
) -> None:
    path, own = tmp_path / "a.jpg", block().replace(b"</x:xmpmeta>", b"</x:xmpmeta>" + b" " * (length - len(block())))
    write(picture(3, exif=exif(), xmp=own), path)
    assert read(path).exif
    if length == 65_504:
        assert read(path).xmp == own
        assert not caplog.records
    else:
        assert read(path).xmp is None
        assert caplog.messages == [f"{path}: its XMP block is too large for JPEG and is left out"]


def test_images_of_pillow_keep_it() -> None:
    data = io.BytesIO()
    Image.fromarray(samples(3)).save(data, "jpeg", xmp=GIVEN)
    assert to_pil(from_pil(Image.open(data))).info["xmp"] == KEPT


# -- texts of PNG


def with_texts(*chunks: bytes, behind: bytes = b"") -> bytes:
    """A PNG with chunks before and behind its samples."""
    data = io.BytesIO()
    Image.fromarray(samples(3)).save(data, "png")
    whole = data.getvalue()
    return whole[:33] + b"".join(chunks) + whole[33:-12] + behind + whole[-12:]


LATIN = chunk(b"tEXt", "Title\0caf\u00e9".encode("latin-1"))
LONG = chunk(b"tEXt", b"parameters\0" + b"a cat, best quality\nSteps: 20, Size: 512x512 " * 50)
COMPRESSED = chunk(b"zTXt", b"Comment\0\0" + zlib.compress("caf\u00e9 ".encode("latin-1") * 20))
UNICODE = chunk(b"iTXt", "Description\0\0\0de\0Beschreibung\0caf\u00e9 \u4e2d".encode())
COMPRESSED_UNICODE = chunk(b"iTXt", b"Copyright\0\1\0\0\0" + zlib.compress("\u00a9 \u4e2d".encode()))
TEXTS = LATIN + LONG + COMPRESSED + UNICODE + COMPRESSED_UNICODE


def texts(path: Path) -> dict[str, Any]:
    """As Pillow reads them."""
    with Image.open(path) as image:
        image.load()
        assert isinstance(image, PngImagePlugin.PngImageFile)
        return dict(image.text)


def test_texts_go_from_png_to_png(tmp_path: Path) -> None:
    start, end = tmp_path / "a.png", tmp_path / "b.png"
    start.write_bytes(with_texts(LATIN, LONG, COMPRESSED, behind=UNICODE + COMPRESSED_UNICODE))
    found = read(start)
    assert found.texts == TEXTS
    write(found, end)
    assert read(end).texts == TEXTS
    assert texts(end) == texts(start)
    assert texts(end)["Title"] == "caf\u00e9"
    assert texts(end)["Description"] == "caf\u00e9 \u4e2d"
    assert texts(end)["Copyright"] == "\u00a9 \u4e2d"
    layout = StripReader(start).layout
    assert layout.texts == TEXTS
    with StripWriter(tmp_path / "c.png", layout) as out:
        out.write(0, found.samples)
    assert (tmp_path / "c.png").read_bytes() == end.read_bytes()
    for name in ("d.jpg", "d.tif", "d.webp"):
        write(found, tmp_path / name)
        assert read(tmp_path / name).texts is None


def test_xmp_is_not_taken_for_a_text_and_may_stand_behind_the_samples(tmp_path: Path) -> None:
    whole = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + GIVEN)
    raw = chunk(b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b"\nxmp\n 1\n20\n"))
    found = read(with_texts(raw, LATIN, behind=whole + whole))
    assert (found.xmp, found.texts) == (KEPT, LATIN)
    write(found, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().count(xmp.KEY) == 1


@pytest.mark.parametrize(
    "bad",
    [
        LATIN[:-1] + b"\0",  # a wrong check sum
        chunk(b"tEXt", b"no end of the key"),
        chunk(b"tEXt", b"\0no key"),
        chunk(b"tEXt", b"k" * 80 + b"\0key too long"),
        chunk(b"tEXt", b"exif:Orientation\x006"),
        chunk(b"tEXt", b"Thumb::Image::Width\x0053"),
        chunk(b"iTXt", xmp.KEY + b"\0\1\0\0\0no zlib"),
        chunk(b"iTXt", xmp.KEY + b"\0\1\0\0\0" + zlib.compress(bytes(64 << 20))),
        chunk(b"iTXt", xmp.KEY + b"\0"),
        chunk(b"tEXt", b"Comment\0" + bytes(5 << 20)),
    ],
)
def test_bad_texts_cost_nothing_else(bad: bytes) -> None:
    for data in (with_texts(bad, LONG), with_texts(LONG, behind=bad), with_texts(LONG, behind=LONG[:8])):
        head, texts = xmp.of_png(io.BytesIO(data))
        assert (xmp.kept(head), texts) == (None, LONG)
    found = read(with_texts(LONG, behind=bad))
    assert (found.xmp, found.texts) == (None, LONG)
