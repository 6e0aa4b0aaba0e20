"""Metrics, benchmark runs, tables, figures, and every cited figure with its source."""
