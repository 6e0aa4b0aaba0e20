"""Pictures as data: exact resizing, reading and writing files with their metadata, work by strips."""
