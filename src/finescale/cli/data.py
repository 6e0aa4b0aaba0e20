"""`finescale data`: public data sets, drawn pictures, and pictures packed to train on."""

import argparse
from pathlib import Path

from finescale.cli.arguments import named


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the three things to do."""
    what = parser.add_subparsers(dest="what", metavar="prepare|get|draw", required=True)
    prepare = what.add_parser("prepare", help="pack pictures into a store to train on")
    prepare.add_argument("folders", nargs="+", type=named, metavar="FOLDER", help="pictures, in subfolders too")
    where = "the store to make (default: stores/train, where recipes look)"
    prepare.add_argument("-o", "--out", type=named, default=Path("stores/train"), metavar="STORE", help=where)
    prepare.add_argument("--scales", help="scales to make low-resolution pictures for (2,3,4; or those of --small)")
    pairs = "take small pictures of the same names from a folder instead, such as 2=FOLDER; may be repeated"
    prepare.add_argument("--small", action="append", default=[], type=_pair, metavar="SCALE=FOLDER", help=pairs)
    missing = "shrink the pictures that have none there, instead of leaving them out"
    prepare.add_argument("--shrink-missing", action="store_true", help=missing)
    prepare.add_argument(
        "--licence", default="", metavar="TEXT", help="of the pictures; told in weights trained on them"
    )
    prepare.add_argument("--workers", type=int, help="processes (default: one per core)")
    prepare.add_argument("--overwrite", action="store_true", help="replace a store that is there")
    get = what.add_parser("get", help="download public data sets from their homes")
    get.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="such as DIV2K or Set5, or a classifier such as vgg19 (into the cache); none: list the sets",
    )
    get.add_argument(
        "-o", "--out", type=named, metavar="DIR", help="folder for the sets (default: the user's data folder)"
    )
    draw = what.add_parser("draw", help="make pictures to train on: text, line drawings, pixel art, dithering, charts")
    draw.add_argument("-o", "--out", type=named, required=True, metavar="DIR", help="folder for the pictures")
    draw.add_argument("--count", type=int, default=160, help="how many (160)")
    draw.add_argument("--seed", type=int, default=0, help="of the first one; the next have the numbers after it (0)")
    draw.add_argument("--side", type=int, help="pixels of each side (1020; of small pictures of pairs 340)")
    pairs = "pairs instead, DIR/large and DIR/small: text and sprites as screens show them, 2, 3 or 4 times as large"
    draw.add_argument("--pairs", type=int, choices=[2, 3, 4], metavar="SCALE", help=pairs)
    draw.add_argument("--overwrite", action="store_true", help="replace pictures that are there")


def run(args: argparse.Namespace) -> int:
    """Prepares, draws or gets."""
    if args.what == "prepare":
        from finescale.data.screen import prepare
        from finescale.inference.machine import cores

        workers = cores() if args.workers is None else args.workers
        small = dict(args.small)
        scales = args.scales or ",".join(map(str, small)) or "2,3,4"
        return prepare(
            args.folders, args.out, scales, small, args.shrink_missing, args.licence, workers, args.overwrite
        )
    if args.what == "draw":
        from finescale.data.screen import draw

        return draw(args.out, args.count, args.seed, args.side, args.pairs, args.overwrite)
    from finescale.data.screen import get

    return get(args.names, args.out)


def _pair(text: str) -> tuple[int, Path]:
    scale, _, name = text.partition("=")
    folder = Path(name).expanduser()  # which shells do at the beginning of a word alone
    if scale not in ("2", "3", "4") or not name or not folder.is_dir():
        raise argparse.ArgumentTypeError(f"expected such as 2=FOLDER, with a folder that is there, not '{text}'")
    return int(scale), folder
