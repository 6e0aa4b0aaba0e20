"""Recipes, the training loop, and what belongs to it."""

from finescale import open_room

open_room(__name__)
