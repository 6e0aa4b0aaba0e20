"""What the page's worker tells whoever started the server, and its previews."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import tiny_network
from tests.inference.test_tiling import picture

from finescale.cli.main import main
from finescale.images.colours import chunk
from finescale.images.files import read, warnings_to, write
from finescale.images.picture import Picture, to_pil
from finescale.inference.photograph import PHOTOGRAPH
from finescale.inference.upscale import Networks
from finescale.networks import AUTO, DEFAULT, FOR_JPEG
from finescale.web.jobs import Limits, Order
from finescale.web.studio import Studio, preview
from finescale.weights.files import save


@pytest.mark.slow
def test_what_int8_costs_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    save(tiny_network(2, channels=24, blocks=1), tmp_path / f"{DEFAULT}-x2.safetensors", dtype=torch.float32)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
    small = tmp_path / "a.png"
    write(Picture(picture(20, 30)), small)
    assert main(["upscale", str(small), "--scale", "2", "--precision", "int8", "-o", str(tmp_path / "b.png")]) == 0
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "int8, x2: " in line]
    assert "dB from the float32 picture" in said
    studio = Studio(Limits(), {"precision": "int8"})
    order = Order("a", DEFAULT, (30, 20), (60, 40), "png", "a.png")
    for i in range(2):
        studio(order, small, tmp_path / f"{i}.png", lambda _: None, lambda _: None)
    (record,) = [record for record in caplog.records if "int8" in record.message]
    assert record.message in said
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_every_job_is_done_by_the_network_it_asks_for_or_the_one_that_suits(
    tiny_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    settings = {"engine": "torch", "precision": "float32", "device": "cpu"}
    made, chosen = list[Any](), list[str]()

    def noted(network: str, **options: Any) -> Networks:
        made.append(network)
        return Networks(network, **options)

    monkeypatch.setattr("finescale.web.studio.Networks", noted)
    write(Picture(picture(20, 30)), tmp_path / "a.png")
    to_pil(Picture(picture(20, 30))).save(tmp_path / "a.jpg", quality=40)
    studio = Studio(Limits(), settings)
    results = []
    for name, network, expected in (
        ("a.png", DEFAULT, DEFAULT),
        ("a.png", "bicubic", "bicubic"),
        ("a.png", DEFAULT, DEFAULT),
        ("a.jpg", AUTO, FOR_JPEG),
        ("a.jpg", DEFAULT, DEFAULT),
        ("a.jpg", FOR_JPEG, FOR_JPEG),
        (str(PHOTOGRAPH), AUTO, DEFAULT),
        ("a.png", "bicubic", "bicubic"),
    ):
        small, large, said = read(tmp_path / name), tmp_path / f"{len(chosen)}.png", list[str]()
        size = small.size[0] * 2, small.size[1] * 2
        with warnings_to(said.append):
            order = Order("a", network, small.size, size, "png", "a.png")
            studio(order, tmp_path / name, large, lambda _: None, chosen.append)
        reason = "a JPEG of quality 40; network: sa-rcan-light-jpeg, which takes the traces of JPEG away"
        assert said == ([f"{tmp_path / name}: {reason}"] if (network, expected) == (AUTO, FOR_JPEG) else [])
        assert chosen[-1] == expected
        results.append(read(large).pixels)
        assert (results[-1] == Networks(expected, **settings).picture(small, size).pixels).all(), (name, network)
    assert (results[0] != results[1]).any()
    assert (results[3] != results[4]).any()
    assert made == [DEFAULT, "bicubic", FOR_JPEG, "bicubic"]  # two stay ready


def test_previews_tell_their_colours(tmp_path: Path) -> None:
    wide = chunk(b"cICP", bytes([12, 13, 0, 1]))
    write(Picture(picture(20, 30), colours=wide), tmp_path / "a.png")
    preview(tmp_path / "a.png", tmp_path / "b.png", 10, 1000)
    assert (read(tmp_path / "b.png").size, read(tmp_path / "b.png").colours) == ((10, 7), wide)


@pytest.mark.usefixtures("windows_files")
def test_a_preview_that_another_request_has_made_meanwhile_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(Picture(picture(20, 30)), tmp_path / "a.png")
    with ExitStack() as other:

        def slowly(file: Path, **options: Any) -> Picture:
            (tmp_path / "b.png").write_bytes(b"the other's")
            other.enter_context(open(tmp_path / "b.png", "rb"))  # and is being sent
            return read(file, **options)

        monkeypatch.setattr("finescale.web.studio.files.read", slowly)
        preview(tmp_path / "a.png", tmp_path / "b.png", 10, 1000)
    assert (tmp_path / "b.png").read_bytes() == b"the other's"
    assert len(list(tmp_path.iterdir())) == 2
