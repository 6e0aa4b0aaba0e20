"""`finescale upscale`: pictures enlarged."""

import argparse
import sys

from finescale.cli.arguments import add_window
from finescale.inference import ENGINES, PRECISIONS
from finescale.networks import AUTO


def add_engine(parser: argparse._ActionsContainer) -> None:
    """Adds what computes, shared with `serve`."""
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: auto)")
    add("--engine", default="auto", choices=ENGINES, help="what computes (default: auto)")
    add(
        "--precision",
        default="auto",
        choices=PRECISIONS,
        help="int8: faster and a little less exact, says how much (default: auto)",
    )
    add("--tile", type=int, metavar="PIXELS", help="side of the tiles of the input (default: by the memory at hand)")
    add_window(parser)


def engine_settings(args: argparse.Namespace) -> dict[str, object]:
    """What `add_engine` and `--ensemble` were given, as settings of an Upscaler."""
    names = ("device", "engine", "precision", "ensemble", "tile", "window")
    return {name: value for name, value in vars(args).items() if name in names}


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add(
        "pictures",
        nargs="+",
        metavar="PICTURE",
        help="files, folders (with all below them), patterns such as *.jpg, or - for standard input",
    )
    add(
        "-o",
        "--output",
        metavar="FILE|DIR",
        help="where to; by default NAME_x4.png beside each picture; - is standard output",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--scale", metavar="FACTOR", help="any factor up to 16: 4, 2.5, 3/2 (default: 4, or the network's largest)"
    )
    size.add_argument("--width", metavar="PIXELS", help="width of the result; the height follows")
    size.add_argument("--height", metavar="PIXELS", help="height of the result; the width follows")
    size.add_argument("--fit", metavar="WxH", help="as large as fits into this box")
    add(
        "--network",
        default=AUTO,
        metavar="NAME|FILE",
        help="a network (see `finescale networks`) or a weight file (default: auto, by what each picture is)",
    )
    add("--ensemble", action="store_true", help="average over eight flips and turns in float32: 8 to 30 times slower")
    add(
        "--format",
        type=str.lower,
        help="png, jpeg, webp, tiff, avif, bmp, or same: as each picture (default: by the output's name, else png; "
        "TIFF stays)",
    )
    add("--suffix", metavar="TEXT", help="end of the results' names (default: by the size, such as _x4)")
    add("--quality", type=int, metavar="1-100", help="for jpeg (default: 95), webp and avif (default: 90)")
    add("--strip", action="store_true", help="leave out EXIF (camera, place, date), XMP and texts; the profile stays")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace pictures that are there already")
    existing.add_argument(
        "--skip-existing",
        action="store_true",
        help="skip pictures whose result exists (folders always do; for one file alone it is an error otherwise)",
    )
    add_engine(parser)
    add("--json", action="store_true", help="print what was made, was there already, and failed as JSON")
    add("--quiet", action="store_true", help="only errors: no progress bar, no remarks")


def run(args: argparse.Namespace) -> int:
    """Enlarges the pictures; 1 if any of them failed."""
    # a part of OpenVINO that is not used here, and takes longer to import than all the rest of it
    sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

    from finescale.images.sizes import parse_box, parse_scale, parse_side
    from finescale.inference.batch import upscale_files
    from finescale.inference.flow import Options
    from finescale.inference.size import Target
    from finescale.inference.upscale import Networks

    scale = None if args.scale is None else float(parse_scale(args.scale))
    networks = Networks(args.network, **engine_settings(args))
    width, height = (side and parse_side(name, side) for name, side in (("width", args.width), ("height", args.height)))
    asked = Target.of(scale, width, height, args.fit and parse_box(args.fit))
    options = Options(
        target=asked or networks.target(),
        networks=networks,
        output=args.output,
        format=args.format,
        quality=args.quality,
        overwrite=args.overwrite,
        skip=args.skip_existing,
        suffix=args.suffix,
        strip=args.strip,
    )
    return upscale_files(args.pictures, options, quiet=args.quiet, as_json=args.json)
