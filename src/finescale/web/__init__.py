"""The local page and its small HTTP API: `finescale serve`. Needs the extra `web`."""
