"""Data sets, the packed store, and random crops from it."""

from finescale import open_room

open_room(__name__)
