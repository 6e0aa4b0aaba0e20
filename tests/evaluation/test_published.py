import pytest

from finescale.evaluation import published, sets


def test_every_figure_has_a_source_and_every_source_is_used() -> None:
    rows = published.rows()
    assert len(rows) > 50
    assert {row.source for row in rows} == set(published.sources())
    for row in rows:
        assert row.figures, row.network
        origin = published.source(row)
        assert origin.title
        assert origin.measured or row.seconds is None, "only what was measured can be timed"
    assert {name for row in rows for name in row.figures} == {*sets.PUBLISHED}


def test_no_row_twice() -> None:
    keys = [(row.network, row.scale, row.source) for row in published.rows()]
    assert len(keys) == len(set(keys))


def test_figures_are_plausible() -> None:
    """No network on record is below bicubic, and x2 is always easier than x4: catches transposed digits."""
    for scale in (2, 4):
        rows = published.rows(scale, measured=False)
        bicubic = next(row for row in rows if row.network == "bicubic")
        for row in rows:
            for name, figures in row.figures.items():
                low = bicubic.figures[name]
                assert low[0] <= figures[0] < low[0] + 8, (row.network, name)
                if len(figures) == 2 and len(low) == 2:
                    assert low[1] <= figures[1] < low[1] + 0.2, (row.network, name)
    known = {(row.network, row.scale): row for row in published.rows(measured=False)}
    for (network, scale), row in known.items():
        if scale == 4 and (network, 2) in known:
            for name in set(row.figures) & set(known[network, 2].figures):
                assert known[network, 2].figures[name][0] > row.figures[name][0] + 2


@pytest.mark.parametrize(
    ("network", "scale", "name", "printed"),
    [
        ("RCAN", 4, "Set5", "32.63 / 0.9002"),
        ("RCAN", 2, "Set5", "38.27 / 0.9614"),
        ("SA-RCAN", 4, "Urban100", "26.77 / 0.8078"),
        ("Attentive SR-ResUNet", 2, "Set14", "33.87 / 0.9197"),
        ("RCAN-it", 4, "Set5", "32.69"),
        ("RCAN-it", 2, "Set14", ""),
    ],
)
def test_known_figures(network: str, scale: int, name: str, printed: str) -> None:
    row = next(row for row in published.rows(scale, measured=False) if row.network == network)
    assert published.pair(row, name) == printed
