"""`finescale doctor`: what is installed, which engines and devices work, where weights are found."""

import argparse


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this verb."""
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(args: argparse.Namespace) -> int:
    """Prints the report; 1 when it finds a problem."""
    import json

    from finescale import doctor

    found = doctor.report()
    print(json.dumps(found, indent=2) if args.json else doctor.text(found))
    return 1 if found["problems"] else 0
