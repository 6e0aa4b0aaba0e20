"""`finescale benchmark`: how fast networks are on this machine, with every engine."""

import argparse

from finescale.cli.arguments import named, positive
from finescale.cli.bench import names


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add("networks", nargs="*", metavar="NETWORK", help="networks or weight files (default: the default network)")
    add("--scale", type=int, choices=(2, 3, 4), default=4, help="which of the networks' weights (default: 4)")
    add("--engines", type=names, default=[], metavar="A,B,...", help="only these: torch, onnx, mnn, openvino")
    add(
        "--precisions",
        type=names,
        default=[],
        metavar="A,B,...",
        help="only these: float32, bfloat16, int8 (default: all that are worth it)",
    )
    add("--size", default="320x180", metavar="WxH", help="of the picture that is enlarged (default: 320x180)")
    add("--repeats", type=positive, default=7, metavar="N", help="timed runs, median counts (default: 7)")
    add("--device", default="auto", help="auto, cpu, cuda, ... (default: auto)")
    add("--json", type=named, metavar="FILE", help="write all figures here; -: print JSON, no table")
    add("--plot", type=named, metavar="FILE", help="draw the seconds as bars (.svg, .png, .pdf)")
    add("--overwrite", action="store_true", help="replace existing files")


def run(args: argparse.Namespace) -> int:
    """Measures, prints and writes; 1 if nothing could be measured."""
    from finescale.evaluation import plots, scoring, tables, throughput
    from finescale.images.sizes import parse_box
    from finescale.networks import DEFAULT

    scoring.check_outputs((args.json, args.plot), overwrite=args.overwrite)
    if args.plot:
        throughput.check_plot(args.plot)
        plots.require()
    with tables.status() as progress:
        found = throughput.measure(
            list(dict.fromkeys(args.networks)) or [DEFAULT],
            args.scale,
            engines=args.engines,
            precisions=args.precisions,
            size=parse_box(args.size),
            repeats=args.repeats,
            device=args.device,
            progress=progress,
        )
    if args.json != scoring.STDOUT:
        throughput.show(found)
    if args.json:
        scoring.write_json(args.json, found.as_json(), overwrite=args.overwrite)
    if args.plot:
        throughput.draw(found, args.plot, overwrite=args.overwrite)
    return 0 if any(line.seconds is not None for line in found.lines) else 1
