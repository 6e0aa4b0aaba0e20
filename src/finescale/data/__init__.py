"""Data sets, the packed store, and random crops from it."""
