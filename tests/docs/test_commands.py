"""Every command of the documentation works as printed."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from finescale.networks import DEFAULT
from finescale.networks.arguments import checked
from finescale.networks.unet import UNet
from finescale.weights import store

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^([^\n]*)\n+```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SKIPPED = re.compile(r"<!-- not run: \S.* -->")
SHORTENED = re.compile(r'<!-- run with "(.+)" for "(.+)": \S.* -->')
PAGES = sorted(p for p in (ROOT / "docs").rglob("*.md") if "results" not in p.parts) + [ROOT / "README.md"]


@dataclass(frozen=True)
class Block:
    """A block of code on a page, and the line it starts at."""

    line: int
    kind: str
    code: str


def blocks(text: str) -> list[Block]:
    """The shell and Python blocks of a page in their order, without those marked `<!-- not run: reason -->`.

    In one marked `<!-- run with "B" for "A": reason -->`, which would take too long as it stands, B replaces A.
    """
    found = []
    for match in BLOCK.finditer("\n" + text):
        above, code = match[1].strip(), match[3]
        if SKIPPED.fullmatch(above):
            continue
        if shorter := SHORTENED.fullmatch(above):
            assert shorter[2] in code, above
            code = code.replace(shorter[2], shorter[1])
        found.append(Block(text.count("\n", 0, max(0, match.start(3) - 1)) + 1, match[2], code))
    return found


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the files that the documentation speaks of, small."""
    photo = Image.open(ROOT / "docs" / "images" / "small.png").convert("RGB").crop((30, 10, 94, 66))
    photo.save(tmp_path / "photo.jpg")
    photo.save(tmp_path / "old.jpg", quality=30)
    Image.open(ROOT / "docs" / "images" / "gallery" / "page.png").crop((0, 0, 80, 60)).save(tmp_path / "page.png")
    for folder in ("photos", "hr"):
        (tmp_path / folder).mkdir()
        photo.save(tmp_path / folder / "one.png")
        photo.crop((0, 0, 49, 41)).save(tmp_path / folder / "two.png")
    for folder in ("my-pictures", "my-validation-pictures"):
        (tmp_path / folder).mkdir()
        large = Image.open(ROOT / "docs" / "images" / "hopper.jpg").crop((100, 0, 228, 112))
        large.save(tmp_path / folder / "one.png")
    for folder in ("docs", "recipes", "weights"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    return tmp_path


def run(block: Block, page: str, desk: Path) -> None:
    """Runs a block on the desk; what it printed is told if it fails."""
    command = ["bash", "-euo", "pipefail"] if block.kind == "sh" else [sys.executable]
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        [*command, "-c", block.code],
        cwd=desk,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        said = f"stdout:\n{done.stdout[-2000:]}\nstderr:\n{done.stderr[-2000:]}"
        pytest.fail(f"{page}, line {block.line}: exit code {done.returncode} of\n\n{block.code}\n{said}", pytrace=False)


def test_blocks_are_found_and_marked_ones_left_out() -> None:
    marked = "<!-- not run: it never ends -->\n```sh\ntwo\n```\n"
    text = f"# A\n\n```sh\none\n```\n\n{marked}text\n```python\nthree\nfour\n```\n"
    assert blocks(text) == [Block(4, "sh", "one\n"), Block(13, "python", "three\nfour\n")]
    shortened = '<!-- run with "sleep 0" for "sleep 99": long -->\n```sh\nsleep 99; one\n```\n'
    assert blocks(shortened) == [Block(3, "sh", "sleep 0; one\n")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_no_command_hides_in_a_block_that_is_not_looked_at(page: Path) -> None:
    kinds = re.findall(r"^ *```(\w*)$", page.read_text("utf-8"), flags=re.MULTILINE)
    assert set(kinds[::2]) <= {"sh", "bat", "python", "toml", "json", "ini", "nginx", "text"}, kinds
    assert set(kinds[1::2]) <= {""}


def test_a_failing_block_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"page.md, line 7: exit code 3 of\n\necho why >&2; false"):
        run(Block(7, "sh", "echo why >&2; false || exit 3\n"), "page.md", tmp_path)


def test_comparisons_are_of_arguments_that_networks_take() -> None:
    text = (ROOT / "recipes" / "README.md").read_text("utf-8")
    rows = re.findall(r"`--set arguments\.(\w+)=([^`]+)`(.*)", text)
    compared = {key: [first, *re.findall(r"`([^`]+)`", others)] for key, first, others in rows}
    assert set(compared) == {"norm", "attention_norm", "activation", "initialisation", "upsampling", "global_residual"}
    for key, values in compared.items():
        assert len(values) > 1
        for value in values:
            assert checked(UNet, {"scale": 4, key: {"true": True, "false": False}.get(value, value)})
    assert {"transposed", "sub-pixel", "sub-pixel-plain"} <= set(compared["upsampling"])


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_command_of_a_page_works(page: Path, desk: Path) -> None:
    found = blocks(page.read_text(encoding="utf-8"))
    if not found:
        pytest.skip(f"{page.name} has no commands")
    missing = [scale for scale in (2, 4) if store.find(DEFAULT, scale) is None]
    if missing and any("upscale" in block.code or "finescale.load" in block.code for block in found):
        pytest.fail(f"there are no weights of {DEFAULT} for x{missing} here ($FINESCALE_WEIGHTS)", pytrace=False)
    for block in found:
        run(block, page.name, desk)
