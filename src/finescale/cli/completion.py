"""`finescale completion`: a script with which the shell completes commands, options and network names."""

import argparse
import sys

SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this verb."""
    parser.add_argument("shell", choices=SHELLS, help="your shell, which loads what is printed")


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    from finescale.cli.main import parser
    from finescale.completion import script

    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(newline="\n")  # bash of Windows takes no other
    print(script(parser(), args.shell))
    return 0
