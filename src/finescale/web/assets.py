"""The files of the page that come with the package."""

from pathlib import Path

STATIC = Path(__file__).resolve().parent / "static"
OPENAPI = Path(__file__).resolve().parent / "openapi.json"
