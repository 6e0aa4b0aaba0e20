"""`finescale convert`: an authors' weight file as one of Finescale's."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("file", metavar="FILE", help="the authors' .pt file")
    add("network", metavar="NETWORK", help="which network it holds: rcan, edsr or edsr-baseline")
    add("--scale", type=int, choices=[2, 3, 4], required=True, help="the file's")
    add("-o", "--output", required=True, metavar="FILE", help="the .safetensors file to write")
    add("--licence", metavar="TEXT", help="the weights' licence, kept in the file")
    add("--overwrite", action="store_true", help="replace the file if it is there already")


def run(args: argparse.Namespace) -> int:
    """Writes the file, in float32, so that its figures are the authors'."""
    from pathlib import Path

    import torch

    from finescale.atomic import check_target
    from finescale.errors import UsageError
    from finescale.networks.published import load_official
    from finescale.weights import files
    from finescale.weights.header import sha256

    source, output = Path(args.file), Path(args.output)
    if output.suffix != ".safetensors":
        raise UsageError(f"{output}: weight files end in .safetensors")
    check_target(output, args.overwrite)
    network = load_official(source, args.network, args.scale)
    notes = {"converted": {"file": source.name, "sha256": sha256(source)}}
    if args.licence:
        notes["licence"] = args.licence
    files.save(network, output, notes=notes, dtype=torch.float32)
    print(f"wrote {output}: {args.network} x{args.scale}")
    return 0
