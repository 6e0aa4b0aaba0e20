"""The command `finescale`, also as `python -m finescale`."""

import sys


def run() -> int:
    """Runs `finescale.cli.main.main`; Ctrl-C is told in a word also while that is imported."""
    try:
        if hasattr(sys, "frozen"):
            from multiprocessing import freeze_support

            freeze_support()  # where this process was started to be a worker, it is one, and ends
        from finescale.cli.main import main

        return main()
    except KeyboardInterrupt:
        print("finescale: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
