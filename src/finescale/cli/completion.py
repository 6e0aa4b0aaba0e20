"""`finescale completion`: a script with which the shell completes commands, options and network names."""

import argparse

SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this verb."""
    parser.add_argument("shell", choices=SHELLS, help="your shell, which loads what is printed")


def run(args: argparse.Namespace) -> int:
    """Prints the script."""
    from finescale.cli.main import parser
    from finescale.completion import script

    print(script(parser(), args.shell))
    return 0
