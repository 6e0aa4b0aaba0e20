"""`finescale convert`: a weight file of the authors, or of BasicSR, as one of Finescale's."""

import argparse

from finescale.cli.arguments import named


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("file", type=named, metavar="FILE", help="the authors' .pt or .pth file, or one of BasicSR")
    add(
        "network",
        metavar="NETWORK",
        nargs="?",
        help="rcan, edsr, edsr-baseline, rrdbnet (ESRGAN) or srvgg; else told by the file",
    )
    add("--scale", type=int, choices=[2, 3, 4], help="scale of the file, where it does not tell")
    add("-o", "--output", type=named, required=True, metavar="FILE", help="the .safetensors file to write")
    add("--licence", metavar="TEXT", help="the weights' licence, kept in the file")
    add("--overwrite", action="store_true", help="replace the file if it is there already")


def run(args: argparse.Namespace) -> int:
    """Writes the file and says so."""
    from finescale.weights import files

    made = files.convert(
        args.file, args.network, args.scale, args.output, licence=args.licence, overwrite=args.overwrite
    )
    print(f"wrote {args.output}: {made.config.name if made.config else ''} x{made.scale}")
    return 0
