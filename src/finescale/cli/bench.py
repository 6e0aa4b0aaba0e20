"""`finescale bench`: networks on benchmark sets, by the published protocol."""

import argparse
from functools import partial

from finescale.cli.arguments import add_window, named, positive, started_as
from finescale.cli.score import add_perceptual, chosen_metrics
from finescale.errors import UsageError
from finescale.inference import ENGINES, PRECISIONS


def names(text: str) -> list[str]:
    """Names separated by commas, each once."""
    found = list(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))
    if not found:
        raise argparse.ArgumentTypeError("expected names separated by commas")
    return found


def quality(text: str) -> int:
    """A JPEG quality."""
    if not text.isdecimal() or not 1 <= int(text) <= 100:
        raise argparse.ArgumentTypeError(f"expected a quality from 1 to 100, not '{text}'")
    return int(text)


def levels(text: str) -> float:
    """How strong noise is."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 255:
        raise argparse.ArgumentTypeError(f"expected grey levels, above 0 and at most 255, not '{text}'")
    return value


def add_damage(parser: argparse.ArgumentParser) -> None:
    """Adds `--noise` and `--jpeg`, shared with `figure`."""
    parser.add_argument(
        "--noise",
        type=levels,
        default=0,
        metavar="LEVELS",
        help="the small pictures are noisy: a standard deviation, in grey levels",
    )
    parser.add_argument(
        "--jpeg", type=quality, metavar="QUALITY", help="the small pictures have been JPEGs of this quality (1 to 100)"
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Adds how networks are applied, shared with `figure`."""
    group = parser.add_argument_group("how networks are applied")
    group.add_argument("--device", help="auto, cpu, cuda, ... (default: auto)")
    group.add_argument(
        "--engine",
        choices=ENGINES,
        help="what computes, as in `finescale upscale` (default: torch; for int8: openvino)",
    )
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="as in `finescale upscale` (default: float32, the same on every machine)",
    )
    group.add_argument("--ensemble", action="store_true", help="average over the eight flips and turns")
    group.add_argument("--tile", type=positive, metavar="N", help="work by tiles of N low-resolution pixels")
    add_window(group)


def settings(args: argparse.Namespace) -> dict[str, object]:
    """The settings that were given."""
    chosen = {key: getattr(args, key) for key in ("device", "engine", "precision", "tile") if getattr(args, key)}
    if args.ensemble:
        chosen["ensemble"] = True
    if "window" in args:
        chosen["window"] = args.window
    return chosen


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--networks",
        type=names,
        required=True,
        metavar="A,B,...",
        help="names of `finescale networks`, weight files, bicubic, bicubic-y (the papers' row), nearest",
    )
    parser.add_argument("--sets", type=names, required=True, metavar="A,B,...", help="names such as Set5, or folders")
    parser.add_argument("--scale", type=int, choices=(2, 3, 4), default=4, help="factor (default: 4)")
    parser.add_argument(
        "--border",
        choices=("replicate", "mirror"),
        default="replicate",
        help="how shrinking goes over the edge: as RCAN's files were made (default), or as present-day MATLAB does",
    )
    add_damage(parser)
    parser.add_argument("--data", type=named, metavar="DIR", help="the folder that holds the sets")
    parser.add_argument("--report", type=named, metavar="DIR", help="write tables and plots into this folder")
    parser.add_argument(
        "--keep", action="store_true", help="with --report: keep the rows of networks that are not measured now"
    )
    parser.add_argument("--json", type=named, metavar="FILE", help="write all figures here; -: print JSON, no table")
    parser.add_argument(
        "--csv",
        type=named,
        metavar="FILE",
        help="write lines for every network, set and picture, and the published ones; -: print them",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument("--no-timing", action="store_true", help="do not measure seconds and memory")
    parser.add_argument(
        "--repeats", type=positive, default=3, metavar="N", help="timed runs, median counts (default 3)"
    )
    add_perceptual(parser)
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Runs, prints and writes, what is done even where it is stopped; 1 if a network had no weights or failed."""
    from finescale.evaluation import arrays, benchmark, contenders, report, scoring, sets, speed, tables

    if args.keep and not args.report:
        raise UsageError("--keep goes with --report: its rows are kept")
    damage = arrays.Damage(args.noise, args.jpeg)
    outputs = [file for file in (args.json, args.csv) if file]
    scoring.check_outputs(outputs, overwrite=args.overwrite)
    contenders.check_names(args.networks, args.scale)
    chosen = [sets.told_apart(sets.find(name, args.data)) for name in args.sets]
    benchmark.check_different(chosen)
    if args.report:
        called = [damage.of(one.name) for one in chosen]
        scoring.check_apart([*outputs, *report.files(args.report, args.scale, called)])
        report.check(args.report, args.scale, called, overwrite=args.overwrite or args.keep)
        pictures = {name: [path.stem for path in one.pictures] for name, one in zip(called, chosen, strict=True)}
    with tables.bar(len(args.networks) * sum(len(one.pictures) for one in chosen)) as progress:
        result = benchmark.run(
            args.networks,
            chosen,
            args.scale,
            settings=settings(args),
            metrics=chosen_metrics(args),
            timed_size=None if args.no_timing else speed.SIZE,
            border=args.border,
            damage=damage,
            repeats=args.repeats,
            command=started_as(),
            earlier=partial(report.kept, folder=args.report, pictures=pictures) if args.keep else None,
            progress=progress,
            keep_stopped=True,
        )
    overwrite = args.overwrite and (args.keep or not result.stopped)  # a part does not replace a whole
    try:
        if args.json:
            scoring.write_json(args.json, result.as_json(), overwrite=overwrite)
        if args.csv:
            scoring.write_text(args.csv, report.csv(result), overwrite=overwrite)
        if args.report:
            report.write(result, args.report, overwrite=overwrite or args.keep)
    finally:
        if scoring.STDOUT not in (args.json, args.csv):
            tables.show_run(result)
    if result.stopped:
        raise result.stopped
    return 1 if result.failed else 0
