"""Every command of the documentation works as printed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"(?P<before>[^\n]*)\n+```(?P<kind>sh|python)\n(?P<code>.*?)```", re.DOTALL)
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "results" not in p.parts) + [ROOT / "README.md"]


def blocks(page: Path) -> list[tuple[str, str]]:
    """The page's shell and Python blocks in their order, without those marked `<!-- not run: reason -->`."""
    found = BLOCK.finditer("\n" + page.read_text())
    return [(m["kind"], m["code"]) for m in found if not m["before"].startswith("<!-- not run: ")]


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the files that the documentation speaks of, small."""
    photo = Image.open(ROOT / "docs" / "images" / "small.png").convert("RGB").crop((30, 10, 94, 66))
    photo.save(tmp_path / "photo.jpg")
    for folder in ("photos", "hr"):
        (tmp_path / folder).mkdir()
        photo.save(tmp_path / folder / "one.png")
        photo.crop((0, 0, 49, 41)).save(tmp_path / folder / "two.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_command_of_a_page_works(page: Path, desk: Path) -> None:
    found = blocks(page)
    if not found:
        pytest.skip(f"{page.name} has no commands")
    command = shutil.which("finescale", path=str(Path(sys.executable).parent)) or "finescale"
    for kind, code in found:
        if kind == "sh":
            code = re.sub(r"^finescale ", f"{command} ", code, flags=re.MULTILINE)
            run = ["bash", "-euo", "pipefail", "-c", code]
        else:
            run = [sys.executable, "-c", code]
        done = subprocess.run(run, cwd=desk, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
