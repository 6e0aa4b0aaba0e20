"""The trained files: what they say of themselves, where they are found, how they are verified."""

from finescale import open_room

open_room(__name__)
