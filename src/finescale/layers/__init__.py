"""Building blocks of networks: activations, attention, norms, upsampling, initialisation."""

from finescale import open_room

open_room(__name__)
