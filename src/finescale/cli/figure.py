"""`finescale figure`: a comparison figure as in papers."""

import argparse

from finescale.cli.arguments import named, positive
from finescale.cli.bench import add_damage, add_settings, names, settings


def box(text: str) -> tuple[int, ...]:
    """X,Y,W,H."""
    parts = text.split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"expected X,Y,W,H in whole pixels, not '{text}'")
    return tuple(int(part) for part in parts)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument
    add("picture", type=named, metavar="PICTURE", help="the original, which is shrunk and enlarged again")
    add("--networks", type=names, required=True, metavar="A,B,...", help="networks, weight files, bicubic, nearest")
    add(
        "--box",
        type=box,
        action="append",
        metavar="X,Y,W,H",
        help="what to show, in pixels of the original; repeatable",
    )
    add("--auto", type=positive, metavar="N", help="choose N boxes: where the networks differ most")
    add("--size", metavar="WxH", help="size of the chosen boxes")
    add("--scale", type=int, choices=(2, 3, 4), default=4, help="factor (default: 4)")
    add("--hr", type=named, metavar="FILE", help="the original, where PICTURE is the low-resolution one")
    add("--real", action="store_true", help="PICTURE is a photograph to enlarge as it is; there is no original")
    add_damage(parser)
    add("-o", "--output", type=named, required=True, metavar="FILE", help="the figure: .png, .pdf, .svg or .webp")
    add("--overwrite", action="store_true", help="replace an existing figure")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Enlarges, chooses and draws."""
    from finescale.errors import UsageError
    from finescale.evaluation import arrays, contenders, figure
    from finescale.images.sizes import parse_box

    size = None if args.size is None else parse_box(args.size)
    if not args.box and not args.auto:
        raise UsageError("say what to show: --box X,Y,W,H, or --auto N")
    if args.size and not args.auto:
        raise UsageError("--size is that of the boxes which --auto N chooses")
    if args.real and args.hr:
        raise UsageError("--real says that there is no original, --hr names one")
    damage = arrays.Damage(args.noise, args.jpeg)
    if damage != arrays.CLEAN and (args.real or args.hr):
        raise UsageError("--noise and --jpeg are for pictures that are shrunk here, so neither for --hr nor for --real")
    figure.check_file(args.output, overwrite=args.overwrite)
    contenders.check_names(args.networks, args.scale)
    chosen = settings(args)
    entrants = [
        contenders.contender(name, args.scale, settings=chosen, label=label)
        for name, label in zip(args.networks, contenders.labels(args.networks))
    ]
    boxes = [figure.Box(*given) for given in args.box or []]
    scene = figure.scene(
        args.picture,
        entrants,
        args.scale,
        high=args.hr,
        real=args.real,
        damage=damage,
        boxes=[*boxes, figure.Box(0, 0, *size)] if size else boxes,
    )
    if args.auto:
        boxes += figure.most_different_boxes(scene, args.auto, size)
    figure.draw(scene, boxes, args.output, overwrite=args.overwrite)
    print(args.output, *(f"{b.left},{b.top},{b.width},{b.height}" for b in boxes))
    return 0
