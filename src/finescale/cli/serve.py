"""`finescale serve`: the local page and its HTTP API."""

import argparse

from finescale.cli.arguments import positive
from finescale.cli.upscale import add_engine, engine_settings


def _number(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e9:
        raise ValueError
    return value


_number.__name__ = "number above 0"  # what argparse calls it


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this verb."""
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="listen there (default: %(default)s)")
    parser.add_argument("--port", type=int, help="listen at this port (default: 8425, or a free one where it is taken)")
    parser.add_argument(
        "--token",
        help="token that every request must carry (default: FINESCALE_TOKEN; else none on this machine, a new random "
        "one with --host)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    add_engine(parser.add_argument_group("how it works"))
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-upload", type=_number, default=100, metavar="MIB", help="of a file (default: %(default)g)"
    )
    limits.add_argument(
        "--max-megapixels", type=_number, default=64, metavar="MP", help="of a picture sent (default: %(default)g)"
    )
    limits.add_argument(
        "--max-result-megapixels", type=_number, default=256, metavar="MP", help="of a result (default: %(default)g)"
    )
    limits.add_argument(
        "--queue", type=positive, default=16, metavar="N", help="jobs that may wait (default: %(default)d)"
    )
    limits.add_argument(
        "--keep",
        type=_number,
        default=720,
        metavar="MINUTES",
        help="how long results are kept after they were last asked for (default: %(default)g)",
    )
    limits.add_argument(
        "--keep-size",
        type=_number,
        default=4,
        metavar="GIB",
        help="disk space for pictures and results; the oldest are deleted first (default: %(default)g, at most half of "
        "what is free)",
    )


def run(args: argparse.Namespace) -> int:
    """Serves until stopped."""
    from finescale.web.jobs import Limits
    from finescale.web.serve import serve

    limits = Limits(
        upload_bytes=round(args.max_upload * (1 << 20)),
        pixels=round(args.max_megapixels * 1e6),
        result_pixels=round(args.max_result_megapixels * 1e6),
        waiting=args.queue,
        kept_bytes=round(args.keep_size * (1 << 30)),
        keep=args.keep * 60,
    )
    settings = engine_settings(args)
    serve(args.host, args.port, token=args.token, browser=not args.no_browser, limits=limits, settings=settings)
    return 0
