"""`finescale resize`: exact bicubic, as the benchmarks' files were made."""

import argparse
import os
import sys
from pathlib import Path

from finescale.cli.arguments import named, not_empty


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's options."""
    parser.add_argument("input", metavar="IN", type=named, help="a picture, or a folder of pictures")
    parser.add_argument("output", metavar="OUT", type=not_empty, help="the file, or the folder, to write")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--scale", help="factor: 3, 0.25, 1/4")
    how.add_argument("--width", metavar="PIXELS", help="width of the result; the height follows")
    how.add_argument("--height", metavar="PIXELS", help="height of the result; the width follows")
    how.add_argument("--fit", metavar="WxH", help="largest size that fits into a box")
    parser.add_argument("--mod-crop", action="store_true", help="for 1/s: first crop to a multiple of s")
    parser.add_argument(
        "--border",
        choices=("replicate", "mirror"),
        default="replicate",
        help="beyond the edges: their nearest pixel (the common collections), or the mirror image (present-day MATLAB)",
    )
    parser.add_argument(
        "--format",
        choices=("png", "jpeg", "webp", "tiff", "avif", "bmp"),
        help="default: by the name; in folders PNG, and TIFF and BMP as they are",
    )
    parser.add_argument("--quality", type=int, help="1 to 100, for JPEG, WebP and AVIF (where 100 is lossless)")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace existing files")
    existing.add_argument("--skip-existing", action="store_true", help="of a folder: leave them as they are")


def run(args: argparse.Namespace) -> int:
    """Resizes every picture; a bad one does not stop the others."""
    from finescale.atomic import writing
    from finescale.errors import FinescaleError, UsageError
    from finescale.images.files import FORMATS, check_choice
    from finescale.images.scaling import pairs, resize_all, resize_file
    from finescale.images.sizes import parse_box, parse_scale, parse_side, target_size

    if not args.input.exists():
        if not {*"*?["}.isdisjoint(str(args.input)):
            raise UsageError(f"{args.input}: IN takes one picture or one folder, no pattern")
        raise FinescaleError(f"{args.input}: no such file or folder")
    scale = None if args.scale is None else parse_scale(args.scale)
    fit = None if args.fit is None else parse_box(args.fit)
    if args.mod_crop and (scale is None or scale.numerator != 1):
        raise UsageError("--mod-crop needs a --scale of 1/s")
    width, height = (side and parse_side(name, side) for name, side in (("width", args.width), ("height", args.height)))
    if scale is None:
        target_size((1, 1), width=width, height=height, fit=fit)  # what no picture could get is refused now
    output = Path(args.output)
    if args.input.is_dir() and output.suffix.lower() in FORMATS and not output.is_dir():
        raise UsageError(f"{output}: one file cannot take several pictures; name a folder")
    if args.input.is_file() and args.output.endswith(("/", os.sep)):
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
    todo = list(pairs(args.input, output, args.format))
    check_choice(args.quality, [target for _, target in todo], args.format)
    options = {
        "scale": scale,
        "width": width,
        "height": height,
        "fit": fit,
        "border": args.border,
        "crop": args.mod_crop,
        "format": args.format,
        "quality": args.quality,
    }
    if not args.input.is_dir():
        width, height = resize_file(*todo[0], overwrite=args.overwrite, **options)
        print(f"{todo[0][1]}: {width} x {height} pixels")
        return 0
    if not todo:
        raise FinescaleError(f"{args.input}: holds no pictures")
    done = there = failed = 0
    for _, result in resize_all(todo, overwrite=args.overwrite, skip=args.skip_existing, **options):
        if isinstance(result, FinescaleError):
            print(f"finescale: {result}", file=sys.stderr)
            failed += 1
        elif result is None:
            there += 1
        else:
            done += 1
    rest = "".join(f", {count} {what}" for count, what in ((there, "already there"), (failed, "failed")) if count)
    print(f"{done} {'picture' if done == 1 else 'pictures'} resized to {output}{rest}")
    return 1 if failed else 0
