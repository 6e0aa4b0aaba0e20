"""`finescale convert`: a weight file of the authors, or of BasicSR, as one of Finescale's."""

import argparse

from finescale.cli.arguments import named


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("file", type=named, metavar="FILE", help="the authors' .pt file, or one of BasicSR")
    add("network", metavar="NETWORK", help="which network it holds: rcan, edsr or edsr-baseline")
    add("--scale", type=int, choices=[2, 3, 4], required=True, help="scale of the file")
    add("-o", "--output", type=named, required=True, metavar="FILE", help="the .safetensors file to write")
    add("--licence", metavar="TEXT", help="the weights' licence, kept in the file")
    add("--overwrite", action="store_true", help="replace the file if it is there already")


def run(args: argparse.Namespace) -> int:
    """Writes the file and says so."""
    from finescale.weights import files

    files.convert(args.file, args.network, args.scale, args.output, licence=args.licence, overwrite=args.overwrite)
    print(f"wrote {args.output}: {args.network} x{args.scale}")
    return 0
