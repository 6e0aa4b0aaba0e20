"""Published classifiers, as encoders of U-Nets and as judges of perceptual losses."""

from finescale import open_room

open_room(__name__)
