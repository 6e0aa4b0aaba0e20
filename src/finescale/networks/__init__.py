"""Super-resolution networks, all of them named in `catalogue`."""
