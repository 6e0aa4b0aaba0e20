"""The drawings of the networks are those of the networks as they are."""

import runpy
from pathlib import Path
from xml.etree import ElementTree

import pytest

from finescale.networks import DEFAULT
from finescale.networks.catalogue import NETWORKS

DOCS = Path(__file__).resolve().parents[2] / "docs"
TRAINED = [name for name, entry in NETWORKS.items() if entry.trained]
# networks that are the default one with other weights are drawn as that one
DRAWN = [name for name in TRAINED if name == DEFAULT or NETWORKS[name].arguments != NETWORKS[DEFAULT].arguments]


@pytest.fixture(scope="module")
def script() -> dict[str, object]:
    return runpy.run_path(str(DOCS / "draw.py"))


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_is_what_its_network_gives(name: str, script: dict[str, object]) -> None:
    draw = script["draw"]
    assert callable(draw)
    fresh = draw(name)
    kept = DOCS / "images" / "networks" / f"{name}.svg"
    assert kept.read_text(encoding="utf-8") == fresh, f"{kept.name} is stale: run python docs/draw.py"
    root = ElementTree.fromstring(fresh)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    boxes = [(float(r.attrib["x"]), float(r.attrib["y"]), r) for r in root.iter("{http://www.w3.org/2000/svg}rect")]
    for x, y, box in boxes:
        assert x >= 0
        assert y >= 0
        assert x + float(box.attrib["width"]) <= width
        assert y + float(box.attrib["height"]) <= height


def test_every_network_is_explained_with_its_drawing() -> None:
    page = (DOCS / "networks.md").read_text()
    for name in DRAWN:
        assert f"images/networks/{name}.svg" in page, name
    for name in TRAINED:
        assert f"`{name}`" in page, name


def test_each_architecture_is_drawn_once(script: dict[str, object]) -> None:
    drawn = script["drawn"]
    assert callable(drawn)
    assert drawn() == DRAWN
