"""`python -m finescale`."""

import sys

from finescale.cli.main import main

sys.exit(main())
