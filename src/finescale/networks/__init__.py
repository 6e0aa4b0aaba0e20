"""Super-resolution networks, all of them named in `catalogue`."""

DEFAULT = "sa-rcan-light"  # here, not in the catalogue, for those who want the name without importing torch
