"""A weight file that says nonsense of itself is refused in one sentence."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from finescale.cli.main import main
from finescale.errors import FinescaleError
from finescale.weights import files, places
from finescale.weights.header import read_header
from finescale.weights.official import OFFICIAL

GOOD = {"format": "finescale-1", "name": "rcan", "architecture": "RCAN", "arguments": '{"scale": 2}', "notes": "{}"}


def written(folder: Path, metadata: dict[str, str]) -> Path:
    path = folder / "w.safetensors"
    save_file({"a": torch.zeros(1)}, str(path), metadata=metadata)
    return path


@pytest.mark.parametrize(
    "metadata",
    [
        {key: value for key, value in GOOD.items() if key != "name"},
        {key: value for key, value in GOOD.items() if key != "arguments"},
        {**GOOD, "arguments": "{"},
        {**GOOD, "arguments": "[]"},
        {**GOOD, "arguments": "{}"},
        {**GOOD, "arguments": '{"scale": "two"}'},
        {**GOOD, "notes": "5"},
    ],
)
def test_damaged_metadata(tmp_path: Path, metadata: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, metadata)
    with pytest.raises(FinescaleError, match=r"w\.safetensors: damaged metadata"):
        read_header(path)
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["upscale", str(tmp_path / "a.png"), "--network", str(path), "--scale", "2"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"finescale: {path}: damaged metadata")
    assert shown.count("\n") == 1


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".ckpt", ".PKL"])
def test_what_is_no_safetensors_file(tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"RealESRGAN_x4plus{suffix}"
    torch.save({"params_ema": {"conv_first.weight": torch.zeros(1)}}, path)
    (tmp_path / "a.png").write_bytes(b"")
    assert main(["upscale", str(tmp_path / "a.png"), "--network", str(path)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"finescale: {path}: not a safetensors file; `finescale convert` makes one from ")
    assert shown.endswith("; files of other networks are not read\n")
    assert all(name in shown for name in OFFICIAL)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ('{"scale": 2, "chanels": 8}', "did you mean 'channels'"),
        ('{"scale": 2, "channels": -8}', "channels: should be greater than 0"),
        ('{"scale": 2, "channels": "wide"}', "channels: should be a valid integer"),
    ],
)
def test_impossible_arguments(tmp_path: Path, arguments: str, reason: str) -> None:
    with pytest.raises(FinescaleError, match=reason):
        files.load(written(tmp_path, {**GOOD, "arguments": arguments}))


@pytest.mark.parametrize("index", ["[]", "{", '{"w.safetensors": 3}', '{"w.safetensors": {"sha": "x"}}'])
def test_a_damaged_index(tmp_path: Path, index: str) -> None:
    path = written(tmp_path, GOOD)
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(FinescaleError, match="damaged index of weights"):
        places.verify(path)
