import pytest

from finescale.web.names import content_disposition, safe_name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("cat.png", "cat.png"),
        ("Grüße vom Meer.JPG", "Grüße vom Meer.JPG"),
        ("/etc/passwd", "passwd"),
        ("..\\..\\x.png", "x.png"),
        ("....", "picture"),
        ("", "picture"),
        (None, "picture"),
        ('a"b<c>:d|e?*.png', "a_b_c__d_e__.png"),
        ("x\x00\u202e\u200by.png", "xy.png"),
        ("." * 3 + "hidden", "hidden"),
        ("n" * 300 + ".png", "n" * 110 + ".png"),
        ("n" * 300, "n" * 120),
    ],
)
def test_names_become_harmless(name: str | None, safe: str) -> None:
    assert safe_name(name) == safe


def test_downloads_are_named_in_ascii_and_exactly() -> None:
    assert (
        content_disposition("Grüße.png") == "attachment; filename=\"Gr__e.png\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.png"
    )
