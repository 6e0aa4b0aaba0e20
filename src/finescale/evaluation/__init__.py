"""Metrics, benchmark runs, tables, figures, and every cited figure with its source."""

from finescale import open_room

open_room(__name__)
