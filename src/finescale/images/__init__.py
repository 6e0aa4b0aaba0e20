"""Pictures as data: exact resizing, reading and writing files with their metadata, work by strips."""

from finescale import open_room

open_room(__name__)
