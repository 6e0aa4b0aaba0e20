"""Pictures from files and into files: every sample, profile, EXIF, XMP, resolution; nothing half written.

Reading goes through libvips, which gives every format at its own depth, and through `decoders` where it does not;
writing of PNG and TIFF through `encoders`, of AVIF through libvips and of the rest through Pillow.
"""

import inspect
import io
import logging
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyvips

from finescale.atomic import new_file
from finescale.errors import (
    FinescaleError,
    ShortOfMemoryError,
    TooLargeError,
    UsageError,
    is_out_of_memory,
    nearest,
    system_reason,
)
from finescale.images import colours, forks, jpeg, tiff
from finescale.images import exif as exif_blocks
from finescale.images import xmp as xmp_blocks
from finescale.images.decoders import HEIC, Decoder, Info, is_heic, with_libheif, with_pillow
from finescale.images.encoders import ENCODERS, Layout
from finescale.images.picture import (
    ERRORS,
    Picture,
    Samples,
    changes_colours,
    cmyk_to_srgb,
    damaged,
    fitting,
    full_range,
    on_white,
    oriented,
    split,
    to_8_bit,
    to_integers,
    to_pil,
)

log = logging.getLogger("finescale")
_listener: ContextVar[Callable[[str], object] | None] = ContextVar("listener", default=None)
_stripping: ContextVar[bool] = ContextVar("stripping", default=False)
_PRIVATE: dict[str, Any] = dict.fromkeys(("exif", "xmp", "texts"))
logging.getLogger("pyvips").addHandler(logging.NullHandler())  # its remarks are for those who set up logging

# Extension -> format, for the formats that are written.
FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".jpe": "jpeg",
    ".jfif": "jpeg",
    ".webp": "webp",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".avif": "avif",
    ".bmp": "bmp",
}
LOSSLESS = ("png", "tiff", "bmp")
HEIC_NAMES = {".heic": "heic", ".heif": "heic", ".hif": "heic"}
READABLE = FORMATS | {
    ".apng": "png",
    ".gif": "gif",
    ".mpo": "jpeg",
    ".avifs": "avif",
    ".ppm": "ppm",
    ".pgm": "ppm",
    ".pbm": "ppm",
    ".pnm": "ppm",
}
READABLE |= HEIC_NAMES if HEIC else {}
"""Extension -> format of pictures that can be read, for looking through folders; `read` itself goes by the content."""

MAX_PIXELS = 500_000_000
"""Largest picture that is read as a whole unless told otherwise; larger ones go by strips (`images.strips`)."""

_UNKNOWN_FORMAT = "not a picture in a format that is read here"
_LOADERS = {"png": "png", "jpeg": "jpeg", "webp": "webp", "tiff": "tiff", "heif": "avif", "gif": "gif"}
LARGEST_SIDE = {"jpeg": 65500, "webp": 16383, "avif": 16384}  # pixels per side
_BMP_HEAD = 54 + 1024  # bytes at most, with a palette of greys
_COLOUR_ONLY = ("webp", "avif")  # these store grey as RGB
_QUALITY = {"jpeg": 95, "webp": 90, "avif": 90}

# of libvips; the second where it quotes damaged bytes, over which pyvips fails itself
_ERRORS = (pyvips.Error, UnicodeDecodeError)
# what libvips says where its temporary files, of pictures to be turned, find no room
_NO_ROOM = ("No space left", "write failed", "write error")
# how libvips and its libraries call what they were not built or written for
_UNKNOWN_KIND = (
    "nsupported",
    "bad labq format",
    "not configured",  # compressions of TIFF
    "not implemented",
    "not a whole number of bytes",  # 10 and 12 bits in TIFF
    "samples out of range",  # thousands of channels in TIFF
)

File = str | os.PathLike[str] | bytes | BinaryIO

NAMELESS = "the picture"
"""What one is called in sentences that is in no file with a name."""


class Opened:
    """A file whose header was read; the samples follow on demand.

    Args:
        file: a path, the bytes of a file, or a file opened for reading bytes.
        access: "sequential" to read from top to bottom once, "random" otherwise.

    Raises:
        UsageError: a name that no file can have, or a file that is closed or opened as text.
        FinescaleError: it cannot be read, or is no picture of a known format.
    """

    def __init__(self, file: File, access: str = "sequential") -> None:
        self.name = name_of(file)
        self.image: Any = None
        self._colours: bytes | None = None
        self._left_out = 0  # channels
        self.decoder: Decoder | None = None
        try:
            self.data, head = _contents(file)
        except OSError as error:
            raise self.error(system_reason(error)) from error
        if not head:
            raise self.error("the file is empty")
        try:
            if is_heic(head):
                self.decoder = self._decoder(with_libheif)
            else:
                self._open(access, head)
        except _ERRORS as error:
            said = _said(error)
            if head[:2] == b"BM" or head[:1] == b"P" or head[4:8] == b"ftyp":
                with suppress(*ERRORS):
                    self.decoder = self._decoder(with_pillow)
            if self.decoder is None:
                reason = _damage(said) if _is_known(said) else _UNKNOWN_FORMAT
                if head[:4] in tiff.MARKS:
                    with self._bytes() as opened:
                        reason = tiff.reason(opened) or reason
                raise self.error(reason) from error
        except ERRORS as error:
            raise self.error(damaged(error)) from error
        if head[4:8] == b"ftyp":
            self._colours = colours.of_heif(head)
        if self.decoder is not None:
            self.image = None
            self.format, self.frames = self.decoder.info.format, self.decoder.info.frames
            return
        self.format = _LOADERS.get(self.field("vips-loader", "").split("load")[0], "")
        if not self.format:
            raise self.error(_UNKNOWN_FORMAT)
        self.frames = max(self.field("n-pages", 1), int(b"acTL" in head.split(b"IDAT")[0]) + 1)
        if self.format == "jpeg":
            with suppress(OSError), self._bytes() as opened:
                if much := jpeg.excess(opened):
                    raise self.error(f"has {much}; no program writes so many, and decoding them could take hours")
                self.frames = jpeg.views(opened, named=self.name.lower().endswith(".mpo"))

    def _open(self, access: str, head: bytes) -> None:
        """With libvips."""
        if isinstance(self.data, bytes):
            source = pyvips.Source.new_from_memory(self.data)
        else:
            source = pyvips.Source.new_from_file(os.fsencode(self.data))
        # "error" also stops at files that end too early, which libvips would fill with grey
        options = {"access": access, "fail_on": "error", "revalidate": True}
        if head[:3] == b"\xff\xd8\xff":  # libvips would open Ultra HDR as such, and this is about the picture in it
            self.image = pyvips.Image.jpegload_source(source, **options)
            self.image._references.append(source)  # as `new_from_source` does, or what is read is freed
        else:
            self.image = pyvips.Image.new_from_source(source, "", **options)
        if self.field("vips-loader", "").startswith("tiff"):
            try:
                with self._bytes() as file:
                    self.image, self._left_out = tiff.colours(self.image, file)
            except FinescaleError as error:
                raise self.error(str(error)) from error
        # opening a TIFF can leave remarks behind, which would be told of the next picture that is damaged
        if pyvips.vips_lib.vips_error_buffer()[0] != b"\0":
            pyvips.vips_lib.vips_error_clear()

    def _bytes(self) -> BinaryIO:
        return io.BytesIO(self.data) if isinstance(self.data, bytes) else open(self.data, "rb")

    def _decoder(self, open_with: Callable[[bytes | str], Decoder]) -> Decoder:
        try:
            return open_with(self.data)
        except FinescaleError as error:
            raise self.error(str(error)) from error

    def error(self, reason: str, kind: type[FinescaleError] = FinescaleError) -> FinescaleError:
        """The reason with the file's name before it."""
        return kind(f"{self.name}: {reason}")

    def field(self, name: str, default: Any) -> Any:
        """A field of libvips's metadata."""
        return self.image.get(name) if self.image is not None and self.image.get_typeof(name) else default

    @property
    def cmyk(self) -> bool:
        """Whether the samples are CMYK."""
        return self.image is not None and self.image.interpretation == "cmyk"

    @property
    def orientation(self) -> int:
        """EXIF orientation still to be applied, 1 to 8."""
        value = self.field("orientation", 1)
        return value if value in range(1, 9) else 1

    @property
    def info(self) -> Info:
        """What the header says."""
        if self.decoder is not None:
            return self.decoder.info
        size = (self.image.width, self.image.height)
        channels = self.image.bands - self.cmyk
        bits = 8 if self.image.format == "uchar" else 16
        return Info(*(size[::-1] if self.orientation >= 5 else size), self.format, channels, bits, self.frames)

    def check(self, max_pixels: int | None) -> None:
        """Refuses too many channels or pixels, and warns of what is not read: further frames, unnamed channels."""
        width, height, _, channels, *_ = self.info
        if channels > 4:
            raise self.error(f"holds {channels} channels, and only grey, RGB and CMYK with alpha are read")
        if max_pixels is not None and width * height > max_pixels:
            reason = f"holds {width} x {height} pixels, more than the limit of {max_pixels}"
            raise self.error(reason, TooLargeError)
        if self.frames > 1:
            which = "main one" if self.format == "heic" else "first"
            warn(f"{self.name}: has several frames or pages; only the {which} is read")
        if self._left_out:
            what = "a channel" if self._left_out == 1 else f"{self._left_out} channels"
            warn(f"{self.name}: {what} not called transparency (infrared, a saved selection, ...) left out")

    def metadata(self) -> dict[str, Any]:
        """icc, exif, resolution, colours, xmp and texts, for a Picture or a Layout; see also `stripping`."""
        block, told = self.field("exif-data", None), self._colours
        xmp, texts = self.field("xmp-data", None), None
        scale = (self.image.xres, self.image.yres)  # per millimetre; where the file says nothing, libvips invents it
        said = scale != (1, 1)
        if self.format == "tiff":
            said &= self.field("resolution-unit", None) is not None
            try:
                with self._bytes() as file:
                    block = exif_blocks.from_tags(exif_blocks.read_tags(file))
            except (OSError, ValueError):
                block = None
        elif self.format == "png":
            try:
                with self._bytes() as file:
                    chunks = colours.chunks_of(file)
                    xmp, texts = xmp_blocks.of_png(file)
            except OSError as error:  # it was taken away meanwhile
                raise self.error(system_reason(error)) from error
            told, said = colours.of_png(chunks), chunks.get(colours.RESOLUTION, b"")[-1:] == b"\1"  # 0: no unit
        elif self.format == "jpeg":
            said = any(self.field(name, None) for name in ("resolution-unit", "exif-ifd0-XResolution"))
        if self.orientation >= 5:
            scale = scale[::-1]
        icc = None if self.cmyk else self.field("icc-profile-data", None)
        kept = {
            "icc": icc,
            "exif": exif_blocks.upright(block) if block else None,
            "resolution": (round(scale[0] * 25.4, 2), round(scale[1] * 25.4, 2)) if said and min(scale) > 0 else None,
            "colours": None if icc else told,
            # nothing tells whether libheif has turned it
            "xmp": xmp_blocks.kept(xmp, turned=self.orientation > 1 or self.format == "avif"),
            "texts": texts,
        }
        return kept | _PRIVATE if _stripping.get() else kept

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Turns what libvips says of damaged samples into one sentence."""
        try:
            yield
        except _ERRORS as error:
            said = _said(error)
            if is_out_of_memory(error) or any(phrase in said for phrase in _NO_ROOM):
                raise ShortOfMemoryError(f"{self.name}: cannot be read ({' '.join(said.split())})") from error
            raise self.error(_damage(said)) from error

    def picture(self) -> Picture:
        """Decodes the picture."""
        if self.decoder is not None:
            try:
                found = self.decoder.decode()
                found = found if found.icc else replace(found, colours=self._colours)
                return replace(found, **_PRIVATE) if _stripping.get() else found
            except FinescaleError as error:
                raise self.error(str(error)) from error
            except ERRORS as error:
                raise self.error(damaged(error)) from error
        with self.decoding():
            raw = forks.samples(self.image)
        samples = oriented(self.samples(raw), self.orientation)
        quality = None
        if self.format == "jpeg":
            with suppress(OSError), self._bytes() as file:
                quality = jpeg.quality(file)
        return Picture(*split(samples), format=self.format, quality=quality, **self.metadata())

    def samples(self, raw: Any) -> Samples:
        """Rows (n, W, bands) as libvips gives them, as grey or RGB with or without alpha, over the whole range."""
        try:
            samples = to_integers(raw)
        except FinescaleError as error:
            raise self.error(str(error)) from error
        bits = self.field("bits-per-sample", 16) if self.format == "avif" else 16
        if samples.dtype == np.uint16:
            samples = full_range(samples, bits)
        if self.cmyk:
            colour = cmyk_to_srgb(np.ascontiguousarray(samples[..., :4]), self.field("icc-profile-data", None))
            samples = np.dstack((colour, samples[..., 4:]))
        return samples


@contextmanager
def warnings_to(listener: Callable[[str], object]) -> Iterator[None]:
    """Inside the block `listener` is told the warnings of this module, and the log "finescale" is not.

    This holds for the thread (or the asynchronous task) that entered the block, and for those that read and write for
    it, from which `listener` is called too; others go on as before.
    """
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def stripping(strip: bool = True) -> Iterator[None]:
    """Inside the block pictures are read without EXIF, XMP and texts, which may tell of places and persons.

    What their colours and resolution are is kept. This holds for the same threads as `warnings_to`, and not where
    `strip` is False.
    """
    token = _stripping.set(strip)
    try:
        yield
    finally:
        _stripping.reset(token)


def warn(sentence: str) -> None:
    """Tells a warning about a picture to the listener of `warnings_to`, or to the log."""
    listener = _listener.get()
    if listener:
        listener(sentence)
    else:
        log.warning("%s", sentence)


def read(file: File, *, max_pixels: int | None = MAX_PIXELS) -> Picture:
    """Reads a picture.

    8-bit and 16-bit samples are kept (10 and 12 bits become 16; 1-bit, palettes and 16-bit colour of PPM 8), floats of
    16 and 32 bits in [0, 1] become 16 bit. Integers of 32 bits and signed ones of 8 are refused in files, whose white
    they leave open. CMYK, through its profile, and Lab become sRGB, YCbCr becomes RGB. The EXIF orientation is
    applied. Of several frames or pages the first is read (of HEIC the main one), and of a TIFF no channels beside the
    colours that it does not call transparency, both with a warning in the log "finescale".

    Args:
        file: a path, the bytes of a file, or a file opened for reading bytes.
        max_pixels: refuse larger pictures before decoding them; None: any size.

    Raises:
        UsageError: a name that no file can have, or a file that is closed or opened as text.
        TooLargeError: it has more pixels than that.
        FinescaleError: it cannot be read, is damaged, or is no picture of a known format.
    """
    opened = Opened(file)
    opened.check(max_pixels)
    return opened.picture()


def probe(file: File) -> Info:
    """The size and kind of a picture, from its header alone.

    Raises:
        FinescaleError: it cannot be read, or is no picture of a known format.
    """
    return Opened(file).info


def format_of(path: str | os.PathLike[str], format: str | None = None) -> str:
    """The format to write: `format` ("png", "jpg", ...), or by the path's extension.

    Raises:
        UsageError: it is not among `FORMATS`.
    """
    wanted = format.lower().removeprefix(".") if format else Path(path).suffix.lower().removeprefix(".")
    found = FORMATS.get(f".{wanted}")
    if not wanted:
        raise UsageError(f"{os.fspath(path)}: its name has no extension that tells the format, and none was given")
    if found is None:
        known = sorted(set(FORMATS.values()))
        raise UsageError(
            f"{os.fspath(path)}: cannot write the format '{wanted}' (known: {', '.join(known)}){nearest(wanted, known)}"
        )
    return found


def check_quality(quality: int | None) -> None:
    """Refuses a quality that is not between 1 and 100.

    Raises:
        UsageError: it is not.
    """
    given: object = quality  # whatever a program passed
    if given is not None and (type(given) is bool or not isinstance(given, Integral) or not 1 <= int(given) <= 100):
        raise UsageError(f"quality must be a whole number between 1 and 100, not {given!r}")


def check_name(path: Path, format: str | None) -> None:
    """Refuses a format that is not the one that a file's name says.

    Raises:
        UsageError: it is refused, or not known.
    """
    said = FORMATS.get(path.suffix.lower())
    if said and format_of(path, format) != said:
        raise UsageError(f"{path}: its name says {said}, and --format {format}; leave one of them out")


def check_choice(quality: int | None, targets: Sequence[Path], format: str | None) -> None:
    """Refuses a quality that is not between 1 and 100, or where no result has one to choose.

    Raises:
        UsageError: it is refused, or a format is not known.
    """
    check_quality(quality)
    if quality is not None and targets and {format_of(target, format) for target in targets} <= set(LOSSLESS):
        reason = "there is no quality to choose, its format keeps everything (jpeg, webp and avif have one)"
        raise UsageError(f"{targets[0]}: {reason}")


def write(
    picture: Picture,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    quality: int | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a picture: all of it, or nothing.

    PNG and TIFF keep 16 bits, AVIF 10 of them; the others get 8, rounded. JPEG and BMP cannot hold transparency: the
    picture is laid on white. The log "finescale" has a warning of both, and of colours that will look different: those
    that are not sRGB's and have no profile, which PNG alone can tell, and those with a profile that the format does
    not take (BMP; WebP and AVIF that of a grey picture). Profile, EXIF, XMP and resolution go with it where the format
    has a place for them (BMP: resolution only), and the texts of a PNG into another.

    Args:
        picture: what to write.
        path: where; the folder must exist.
        format: "png", "jpeg", "webp", "tiff", "avif", "bmp"; by default the path's extension decides.
        quality: 1 to 100, for JPEG (default 95, always without colour subsampling), WebP and AVIF (default 90; 100
            is lossless). PNG, TIFF and BMP are always lossless.
        overwrite: replace an existing file.

    Raises:
        UsageError: unknown format, impossible quality, or no name of a file.
        FinescaleError: the file exists, cannot be written (no permission, full disk), or cannot be so large.
    """
    given: object = path  # whatever a program passed
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"write takes the name of a file, not {type(given).__name__}; encode gives the bytes of one")
    kind = _checked(picture, path, format, quality)
    with new_file(path, overwrite=overwrite) as file:
        _encode(picture, file, kind, quality, os.fspath(path))


def encode(picture: Picture, format: str, *, quality: int | None = None) -> bytes:
    """The bytes of the file that `write` would write, for its arguments see there.

    Raises:
        UsageError: unknown format, impossible quality.
        FinescaleError: the format cannot hold so large a picture.
    """
    kind = _checked(picture, NAMELESS, format, quality)
    buffer = io.BytesIO()
    _encode(picture, buffer, kind, quality, NAMELESS)
    return buffer.getvalue()


def _checked(picture: Picture, name: str | os.PathLike[str], format: str | None, quality: int | None) -> str:
    """The kind of file to make of a picture, which can be made of it."""
    kind = format_of(name, format)
    check_quality(quality)
    check_size(name, kind, picture.size, picture.pixels.shape[2])
    return kind


def _encode(picture: Picture, file: BinaryIO, kind: str, quality: int | None, name: str) -> None:
    """Writes a picture into an open file; `name` is what warnings and errors call it."""
    exif = exif_blocks.upright(picture.exif, picture.size) if picture.exif else None
    picture = replace(picture, icc=_profile(picture, kind, name), exif=exif)
    if kind != "png":
        tell_colours(picture, name)
    if kind in ENCODERS:
        encoder = ENCODERS[kind](file, Layout.of(picture))
        encoder.begin()
        encoder.write(picture.samples)
        encoder.finish()
    elif kind == "avif":
        if not forks.ready():
            raise FinescaleError(f"{name}: AVIF cannot be written in a forked process (start it by 'spawn')")
        try:
            file.write(_avif(picture, int(quality or _QUALITY[kind])))
        except _ERRORS as error:  # another build of libheif, or no memory
            reason = " ".join(str(error).split()) or "the encoder failed"
            raise FinescaleError(f"{name}: cannot be written ({reason})") from error
    else:
        file.write(_with_pillow(picture, kind, int(quality or _QUALITY.get(kind, 0)), name))


def check_size(path: str | os.PathLike[str], kind: str, size: tuple[int, int], channels: int = 3) -> None:
    """Refuses a result (width, height) that a format cannot hold.

    Args:
        path: of the result.
        kind: its format.
        size: its width and height.
        channels: of it.

    Raises:
        FinescaleError: it cannot.
    """
    limit = LARGEST_SIDE.get(kind)
    if limit and max(size) > limit:
        raise FinescaleError(
            f"{path}: {kind.upper()} holds at most {limit} pixels per side, not {max(size)} (PNG holds more)"
        )
    row = size[0] * (1 if channels < 3 else 3)
    if kind == "bmp" and _BMP_HEAD + (row + 3) // 4 * 4 * size[1] >= 1 << 32:
        raise FinescaleError(
            f"{path}: BMP holds at most 4 GiB, too few for {size[0]} x {size[1]} pixels (PNG holds more)"
        )


def tell_colours(what: Picture | Layout, name: str) -> None:
    """Warns of colours that are not those of sRGB and have no profile, where no PNG is written of them."""
    if what.colours and not what.icc and not colours.is_srgb(what.colours):
        reason = "its colours are not those of sRGB, which without a profile only PNG can tell"
        warn(f"{name}: {reason}; they will look different")


def _profile(picture: Picture, kind: str, name: str) -> bytes | None:
    """The profile to be written; warns where the format does not take one that matters."""
    own = picture.pixels.shape[2]
    icc = fitting(picture.icc, own)
    kept = None if kind == "bmp" else fitting(picture.icc, 3 if kind in _COLOUR_ONLY else own)
    if icc and not kept and changes_colours(icc, own):
        reason = "holds no colour profile" if kind == "bmp" else "stores grey as colour, without the profile of a grey"
        warn(f"{name}: {kind.upper()} {reason}; its tones will look different")
    return kept


def _with_pillow(picture: Picture, kind: str, quality: int, name: str) -> bytes:
    """The picture as a JPEG, WebP or BMP file."""
    if picture.bits == 16:
        warn(f"{name}: {kind.upper()} holds 8 bits a sample; 16 are rounded (PNG and TIFF keep them)")
    pixels, alpha = to_8_bit(picture.pixels), None if picture.alpha is None else to_8_bit(picture.alpha)
    if kind != "webp" and alpha is not None:
        if alpha.min() < 255:
            warn(f"{name}: {kind.upper()} holds no transparency; the picture is laid on white")
        pixels, alpha = on_white(pixels, alpha), None
    image = to_pil(replace(picture, pixels=pixels, alpha=alpha))
    options: dict[str, Any] = {str(key): value for key, value in image.info.items()}
    if max(picture.resolution or (0, 0)) > 65535:  # JPEG has 16 bits for it
        options.pop("dpi", None)
    if kind == "jpeg":
        options |= {"quality": quality, "subsampling": 0}
        for key, block, most in (("exif", picture.exif, 65533), ("xmp", picture.xmp, 65504)):
            if block and len(block) > most:
                warn(f"{name}: its {key.upper()} block is too large for JPEG and is left out")
                del options[key]
    elif kind == "webp":
        options |= {"quality": quality, "lossless": quality == 100, "exact": True}
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=kind, **options)
    except ValueError as error:  # what the encoder of WebP cannot squeeze in
        raise FinescaleError(f"{name}: cannot be written ({' '.join(str(error).split())})") from error
    return buffer.getvalue()


def _avif(picture: Picture, quality: int) -> bytes:
    """The picture as an AVIF file, at 8 or 10 bits."""
    samples, bits = picture.samples, 8
    if picture.bits == 16:
        bits = 10
        samples = (((samples.astype(np.uint32) * 1023 + 32767) // 65535) << 6).astype(np.uint16)
    grey = picture.pixels.shape[2] == 1
    interpretation = {8: ("srgb", "b-w"), 10: ("rgb16", "grey16")}[bits][grey]
    image = pyvips.Image.new_from_array(samples, interpretation=interpretation)
    across, down = picture.resolution or (25.4, 25.4)
    image = image.copy(xres=across / 25.4, yres=down / 25.4)
    keep = pyvips.ForeignKeep.ICC
    for name, blob, flag in (
        ("icc-profile-data", picture.icc, pyvips.ForeignKeep.ICC),
        ("exif-data", picture.exif, pyvips.ForeignKeep.EXIF),
        ("xmp-data", picture.xmp, pyvips.ForeignKeep.XMP),
    ):
        if blob:
            image.set_type(pyvips.GValue.blob_type, name, blob)
            keep |= flag
    options = {"lossless": True} if quality == 100 else {"Q": quality, "subsample_mode": "off"}
    return image.heifsave_buffer(compression="av1", effort=3, bitdepth=bits, keep=int(keep), **options)


def name_of(file: File) -> str:
    """What a file is called in sentences."""
    if isinstance(file, bytes):
        return NAMELESS
    if isinstance(file, str | os.PathLike):
        return os.fspath(file)
    name = getattr(file, "name", None)  # of temporary files a number, or none
    return name if name and isinstance(name, str) else NAMELESS


def _contents(file: File) -> tuple[bytes | str, bytes]:
    """The data or the path, and the first bytes of the file."""
    if isinstance(file, str | os.PathLike):
        path = os.fspath(file)
        if not path or "\0" in path:
            raise UsageError(f"{path!r}: is no name that a file can have")
        if stat.S_ISFIFO(Path(path).stat().st_mode):  # opening it would wait for a writer
            raise OSError("is a pipe, not a file")
        with open(path, "rb") as opened:
            return path, opened.read(1 << 16)
    try:
        data: Any = file if isinstance(file, bytes) else file.read()
    except UnicodeDecodeError:
        data = ""
    except ValueError as error:
        raise UsageError(f"{name_of(file)}: cannot be read ({str(error).rstrip('.').lower()})") from error
    if inspect.iscoroutine(data):  # of an asynchronous server's upload
        data.close()
        raise UsageError(f"{name_of(file)}: is read asynchronously; give the bytes that its read() gives")
    if not isinstance(data, bytes):
        raise UsageError(f"{name_of(file)}: is opened as text; open it with mode 'rb'")
    return data, data[: 1 << 16]


def _said(error: Exception) -> str:
    """What libvips said, one remark a line."""
    if not isinstance(error, UnicodeDecodeError):
        return str(error).partition("\n")[2]
    pyvips.vips_lib.vips_error_clear()  # pyvips has not, and would fail over it again at the next error
    return error.object.decode(errors="replace")


def _is_known(said: str) -> bool:
    """Whether libvips, which said this of a file, takes it for a format that is read here, and so for a damaged one.

    Not where the loader that complains is that of another: "svgload_source: bad dimensions".
    """
    if "is not a known file format" in said or "is not in a known format" in said:
        return False
    loaders = re.findall(r"^\s*(\w+)load(?:_source)?: ", said, re.MULTILINE)
    return not loaders or any(loader in _LOADERS for loader in loaders)


def _damage(said: str) -> str:
    """The reason among what libvips said."""
    lines = [line.strip() for line in said.splitlines()]
    telling = [x for x in lines if x and "bad seek" not in x and not x.endswith("load error") and x[0] != "("]
    reason = telling[0] if telling else "no reason given"
    unknown = any(phrase in reason for phrase in _UNKNOWN_KIND)
    return f"of a kind that is not supported ({reason})" if unknown else damaged(reason)
