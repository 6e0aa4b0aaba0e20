"""File names that came from elsewhere: made harmless for people, paths and headers."""

import unicodedata
from urllib.parse import quote

_FORBIDDEN = set('<>:"/\\|?*%;')


def safe_name(name: str | None) -> str:
    """The last part of a name, without folders, control and direction characters or leading dots; at most 120 long."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(
        "_" if char in _FORBIDDEN else char
        for char in unicodedata.normalize("NFC", last)
        if unicodedata.category(char)[0] != "C"
    )
    kept = " ".join(kept.split()).lstrip(". ")
    stem, dot, suffix = kept.rpartition(".")
    if len(kept) > 120:
        kept = f"{stem[:110]}{dot}{suffix[:9]}" if dot else kept[:120]
    return kept or "picture"


def content_disposition(name: str) -> str:
    """The header that downloads a reply under a name: an ASCII form, and the exact one (RFC 6266, RFC 8187)."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\' else "_" for char in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
