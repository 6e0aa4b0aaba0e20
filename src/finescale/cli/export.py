"""`finescale export`: a network as an ONNX or OpenVINO file."""

import argparse

from finescale.cli.arguments import add_window, named


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    add = parser.add_argument
    add("network", metavar="NETWORK", help="a network (see `finescale networks`) or a weight file")
    add(
        "-o",
        "--output",
        type=named,
        required=True,
        metavar="FILE",
        help="the file to write (.onnx, or .xml for OpenVINO)",
    )
    add("--format", default="onnx", choices=["onnx", "openvino"], help="(default: onnx)")
    add("--scale", type=int, choices=[2, 3, 4], help="which of the network's weights (default: 4, or the file's own)")
    add_window(parser)
    add("--overwrite", action="store_true", help="replace the file if it is there already")


def run(args: argparse.Namespace) -> int:
    """Writes the file and prints how far it is from PyTorch."""
    from finescale.inference.export import export
    from finescale.inference.prepare import WINDOW
    from finescale.weights import store

    network = store.load(args.network, args.scale)
    side = args.window if "window" in args else WINDOW
    found = export(network, args.output, format=args.format, window=side, overwrite=args.overwrite)
    for (batch, height, width), difference in found.items():
        print(f"{batch} x 3 x {height} x {width}: differs from PyTorch by at most {difference:.1e}")
    print(f"wrote {args.output}: any batch, height and width")
    return 0
