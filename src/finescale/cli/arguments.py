"""Kinds of arguments that several verbs take."""

import argparse
import sys
from pathlib import Path


def started_as() -> list[str]:
    """The words that start this command again; a program of somebody's own may run it, with networks of its own."""
    program = Path(sys.argv[0])
    ours = "finescale" in (program.stem, program.parent.name if program.stem == "__main__" else "")
    return ["finescale", *sys.argv[1:]] if ours else sys.orig_argv


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not '{text}'")
    return int(text)


def window(text: str) -> int | None:
    """The side of local windows in pixels, or None for "global"."""
    return None if text == "global" else positive(text)


def add_window(parser: argparse._ActionsContainer) -> None:
    """Adds `--window`; where it is not given there is no such attribute."""
    parser.add_argument(
        "--window",
        type=window,
        default=argparse.SUPPRESS,
        metavar="N|global",
        help="statistics over squares of N pixels of the small picture (default: 48), or over all of it, as papers do",
    )


def not_empty(text: str) -> str:
    """A name; not that of a variable that is not set, which would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def named(text: str) -> Path:
    """A file or folder, see `not_empty`."""
    return Path(not_empty(text))
