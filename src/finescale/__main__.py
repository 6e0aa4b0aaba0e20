"""The command `finescale`, also as `python -m finescale`."""

import sys


def run() -> int:
    """Runs `finescale.cli.main.main`; Ctrl-C is told in a word also while that is imported."""
    try:
        from finescale.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("finescale: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
