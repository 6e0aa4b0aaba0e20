"""Kinds of arguments that several verbs take."""

import argparse
from pathlib import Path


def positive(text: str) -> int:
    """A whole number above 0."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, not '{text}'")
    return int(text)


def window(text: str) -> int | None:
    """The side of local windows in pixels, or None for "global"."""
    return None if text == "global" else positive(text)


def not_empty(text: str) -> str:
    """A name; not that of a variable that is not set, which would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("the name is empty")
    return text


def named(text: str) -> Path:
    """A file or folder, see `not_empty`."""
    return Path(not_empty(text))
