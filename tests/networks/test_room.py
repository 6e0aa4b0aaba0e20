"""What `import finescale` alone gives: rooms by their dotted paths, and the names of networks."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.conftest import tiny_network

import finescale
from finescale.networks.catalogue import NETWORKS
from finescale.weights import files

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]


@pytest.mark.slow
def test_dotted_paths_of_the_pages_need_no_other_import() -> None:
    named = {path for page in PAGES for path in re.findall(r"`(finescale(?:\.\w+){2,})", page.read_text("utf-8"))}
    assert {"finescale.inference.export.export", "finescale.evaluation.lpips.load"} <= named
    code = f"import finescale, sys\nassert 'torch' not in sys.modules\nprint(*[{', '.join(sorted(named))}], sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_rooms_tell_what_is_in_them_and_what_is_not() -> None:
    assert {"inference", "weights", "errors", "load"} <= set(dir(finescale))
    assert {"catalogue", "unet", "DEFAULT"} <= set(dir(finescale.networks))
    assert {"export", "tiling", "engines"} <= set(dir(finescale.inference))
    for room in (finescale, finescale.inference):
        with pytest.raises(AttributeError, match=rf"module '{room.__name__}' has no attribute 'nonsense'"):
            _ = room.nonsense


def test_trained_networks_are_those_with_weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    assert finescale.networks() == list(NETWORKS)
    before = finescale.networks(trained=True)
    assert "sa-rcan-light" in before
    assert not {"rcan", "bicubic"} & {*before}
    for scale in (2, 4):
        files.save(tiny_network(scale), tmp_path / f"rcan-x{scale}.safetensors", dtype=torch.float32)
    assert sorted(finescale.networks(trained=True)) == sorted([*before, "rcan"])
