"""`finescale score`: PSNR and SSIM of anybody's pictures against the originals."""

import argparse
from typing import TYPE_CHECKING

from finescale.cli.arguments import named, positive

if TYPE_CHECKING:
    from finescale.evaluation.scoring import Metric, Metrics, Unavailable


def add_perceptual(parser: argparse.ArgumentParser) -> None:
    """Adds `--perceptual` and `--brisque`, shared with `bench`."""
    parser.add_argument(
        "--perceptual",
        "--lpips",
        nargs="?",
        const="auto",
        choices=("auto", "alex", "vgg", "squeeze"),
        help="add LPIPS, a perceptual distance, by one of three networks; alone: the first whose weights are found",
    )
    parser.add_argument(
        "--brisque", action="store_true", help="add BRISQUE, which judges without the original; lower is more natural"
    )


def chosen_metrics(args: argparse.Namespace) -> "Metrics":
    """The perceptual measures that were asked for, or what stands for those whose files are missing."""
    from finescale.evaluation import scoring

    chosen: list[Metric | Unavailable] = []
    if args.perceptual:
        from finescale.evaluation import lpips  # torch takes two seconds

        chosen.append(scoring.find("lpips", "LPIPS", lambda: lpips.load(args.perceptual)))
    if args.brisque:
        from finescale.evaluation import brisque

        chosen.append(scoring.find("brisque", "BRISQUE", brisque.load))
    return chosen


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("--hr", type=named, required=True, metavar="PATH", help="the originals: a folder or a picture")
    parser.add_argument("--sr", type=named, required=True, metavar="PATH", help="the enlarged: a folder or a picture")
    parser.add_argument(
        "--scale",
        type=positive,
        required=True,
        metavar="N",
        help="factor by which they were enlarged (sets border and crop as the protocol does)",
    )
    parser.add_argument(
        "--json", type=named, metavar="FILE", help="write all figures here too; -: print JSON, no table"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    add_perceptual(parser)


def run(args: argparse.Namespace) -> int:
    """Scores and prints."""
    from finescale.evaluation import scoring, tables

    scoring.check_outputs((args.json,), overwrite=args.overwrite)
    pairs = scoring.match(args.hr, args.sr, args.scale)
    perceptual = chosen_metrics(args)
    scores = [scoring.score_pair(pair, args.scale, perceptual) for pair in tables.tracked(pairs, "scoring")]
    if args.json:
        content = {"scale": args.scale, **scoring.metrics_json(perceptual), **scoring.as_json(scores)}
        scoring.write_json(args.json, content, overwrite=args.overwrite)
    if args.json != scoring.STDOUT:
        tables.show_scores(scores, args.scale, perceptual)
    return 0
