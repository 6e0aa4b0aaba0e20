"""Networks as ONNX and OpenVINO files: the same picture, at any size, whole files only."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.conftest import tiny_network
from torch import Tensor, nn

from finescale.cli.main import main
from finescale.errors import FinescaleError, UsageError
from finescale.inference import export as module
from finescale.inference.engines.agreement import agreement
from finescale.inference.engines.onnx import OPSET
from finescale.inference.export import SIZES, TOLERANCE, compare, export
from finescale.inference.prepare import for_inference
from finescale.inference.tiling import Array
from finescale.networks.base import Network
from finescale.networks.catalogue import build

onnxruntime = pytest.importorskip("onnxruntime")


def noise(batch: int, height: int, width: int) -> Array:
    return np.random.default_rng(1).random((batch, 3, height, width), np.float32)


def wanted(x: Array, window: int | None = 48) -> Array:
    with torch.inference_mode():
        return for_inference(tiny_network(2), window)(torch.from_numpy(x)).numpy()


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    network = tiny_network(2)
    network.notes = {"licence": "for research", "started_from": {"sha256": "0a"}, "steps": 9}
    found = export(network, path)
    assert set(found) == set(SIZES)
    assert 0 < max(found.values()) < TOLERANCE
    assert [other.name for other in path.parent.iterdir()] == ["net.onnx"]
    return path


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 47, 113), (3, 60, 32)])
def test_plain_onnx_runtime_gives_the_same_picture(onnx_file: Path, size: tuple[int, int, int]) -> None:
    session = onnxruntime.InferenceSession(onnx_file)
    x = noise(*size)
    (y,) = session.run(None, {session.get_inputs()[0].name: x})
    assert y.shape == (size[0], 3, 2 * size[1], 2 * size[2])
    np.testing.assert_allclose(y, wanted(x), atol=TOLERANCE)


def test_an_onnx_file_says_what_it_is(onnx_file: Path) -> None:
    package = pytest.importorskip("onnx")
    model = package.load(onnx_file)
    package.checker.check_model(model, full_check=True)
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [OPSET]
    notes = {entry.key: entry.value for entry in model.metadata_props}
    assert notes["scale"] == "2"
    assert notes["window"] == "48"
    assert notes["margin"] == "48"
    assert notes["network"] == "sa-rcan-light"
    assert json.loads(notes["arguments"])["channels"] == 16
    assert notes["made_by"].startswith("finescale ")
    assert notes["licence"] == "for research"
    assert json.loads(notes["started_from"]) == {"sha256": "0a"}
    assert [entry.name for entry in (*model.graph.input, *model.graph.output)] == ["picture", "enlarged"]
    sides = model.graph.input[0].type.tensor_type.shape.dim
    assert [side.dim_param or side.dim_value for side in sides] == ["batch", 3, "height", "width"]


def test_openvino_files(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    found = export(tiny_network(2), tmp_path / "net.xml", format="openvino")
    assert max(found.values()) < TOLERANCE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.bin", "net.xml"]
    core = openvino.Core()
    model = core.read_model(tmp_path / "net.xml")
    assert model.get_rt_info(["finescale", "scale"]).astype(str) == "2"
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size in ((1, 33, 80), (2, 50, 41)):
        np.testing.assert_allclose(
            compiled({"picture": noise(*size)})["enlarged"], wanted(noise(*size)), atol=TOLERANCE
        )


@pytest.mark.skipif(os.name != "posix", reason="makes links")
def test_openvino_files_through_links(tmp_path: Path) -> None:
    """What they lead to is replaced: it may be on another file system, to which no file is renamed."""
    pytest.importorskip("openvino")
    (tmp_path / "there").mkdir()
    for name in ("net.xml", "net.bin"):
        (tmp_path / "there" / name).write_text("old")
        (tmp_path / name).symlink_to(tmp_path / "there" / name)
    export(tiny_network(2), tmp_path / "net.xml", format="openvino", overwrite=True)
    assert all((tmp_path / name).is_symlink() for name in ("net.xml", "net.bin"))
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["net.bin", "net.xml"]
    assert all(path.stat().st_size > 1000 for path in (tmp_path / "there").iterdir())


def test_openvino_files_in_capitals(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    export(tiny_network(2), tmp_path / "NET.XML", format="openvino")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["NET.XML", "NET.bin"]


def test_global_statistics(tmp_path: Path) -> None:
    x = noise(1, 90, 120)
    x[..., :50] /= 5
    export(tiny_network(2), tmp_path / "net.onnx", window=None)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    (y,) = session.run(None, {"picture": x})
    np.testing.assert_allclose(y, wanted(x, None), atol=TOLERANCE)
    assert np.abs(y - wanted(x)).max() > 2 * TOLERANCE


def test_never_overwrites(tmp_path: Path) -> None:
    for name, format in (("a.onnx", "onnx"), ("b.xml", "openvino"), ("b.bin", "openvino")):
        (tmp_path / name).write_text("mine")
        with pytest.raises(FinescaleError, match="exists"):
            export(tiny_network(2), (tmp_path / name).with_suffix({"onnx": ".onnx"}.get(format, ".xml")), format=format)
        assert (tmp_path / name).read_text() == "mine"
    export(tiny_network(2), tmp_path / "a.onnx", overwrite=True)
    assert (tmp_path / "a.onnx").stat().st_size > 1000


@pytest.mark.parametrize(("name", "format"), [("a.onnx", "onnx"), ("a.xml", "openvino")])
def test_a_wrong_picture_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, format: str
) -> None:
    """The check must be able to fail: it compares with a network of other weights."""
    if format == "openvino":
        pytest.importorskip("openvino")
    other = for_inference(tiny_network(2, blocks=1))
    compare = module.compare
    monkeypatch.setattr(module, "compare", lambda network, run: compare(other, run))
    with pytest.raises(FinescaleError, match="differs from PyTorch's by up to"):
        export(tiny_network(2), tmp_path / name, format=format)
    assert not list(tmp_path.iterdir())


def test_impossible_wishes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        export(tiny_network(2), tmp_path / "a.onnx", format="onxx")
    for name, format, ending in (("a.onnx", "openvino", "xml"), ("a.xml", "onnx", "onnx"), ("a", "onnx", "onnx")):
        with pytest.raises(UsageError, match=rf"{name}: .* ends in \.{ending}"):
            export(tiny_network(2), tmp_path / name, format=format)
    with pytest.raises(FinescaleError, match=r"there is no folder .*nowhere"):
        export(tiny_network(2), tmp_path / "nowhere" / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_as_it_is_typed(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tiny_weights))
    file = str(tmp_path / "net.onnx")
    assert main(["export", "sa-rcan-light", "--scale", "2", "-o", file]) == 0
    said = capsys.readouterr().out
    assert said.count("differs from PyTorch by at most") == 3
    assert f"wrote {file}" in said
    (y,) = onnxruntime.InferenceSession(file).run(None, {"picture": noise(1, 20, 30)})
    np.testing.assert_allclose(y, wanted(noise(1, 20, 30)), atol=TOLERANCE)
    (path,) = tiny_weights.glob("*x2*.safetensors")
    assert main(["export", str(path), "-o", file, "--overwrite", "--window", "global"]) == 0  # a file knows its scale
    notes = onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map
    assert notes["window"] == "global"
    assert "margin" not in notes  # a tile would not be equal to the whole
    capsys.readouterr()
    for arguments, code, message in (
        (["sa-rcan-light", "--scale", "2", "-o", file], 1, "exists"),
        (["sa-rcan-ligth", "-o", str(tmp_path / "b.onnx")], 2, "did you mean 'sa-rcan-light'"),
        (["rcan", "-o", str(tmp_path / "b.onnx")], 1, "no trained weights for rcan"),
    ):
        assert main(["export", *arguments]) == code
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("unet-7", {"encoder": "plain", "widths": (64, 48, 32, 24, 16)}),
        ("sa-rcan", {"channels": 16, "groups": 2, "blocks": 2}),
        ("edsr", {"channels": 16, "blocks": 2}),
        ("rrdbnet", {"channels": 8, "growth": 4, "blocks": 1, "unshuffle": 2}),
        ("srcnn", {}),
    ],
)
def test_other_networks_are_exported_too(name: str, arguments: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(0)
    found = export(build(name, scale=2, **arguments), tmp_path / "a.onnx")
    assert max(found.values()) < TOLERANCE


@pytest.mark.parametrize("size", SIZES)
def test_what_is_not_a_number_is_no_agreement(size: tuple[int, int, int]) -> None:
    def broken(x: Array) -> Array:
        y = np.full((len(x), 3, 2 * x.shape[2], 2 * x.shape[3]), 0.5, np.float32)
        y[0, 0, 0, 0] = np.nan
        return y if x.shape[0] == size[0] and x.shape[2:] == size[1:] else right(x)

    network = for_inference(tiny_network(2))

    def right(x: Array) -> Array:
        with torch.inference_mode():
            return network(torch.from_numpy(x)).numpy()

    with pytest.raises(FinescaleError, match="differs from PyTorch's by up to nan"):
        compare(network, broken)
    assert agreement(network, right, np.zeros((1, 3, 8, 9), np.float32)) > 80
    assert agreement(network, broken, np.zeros((*size[:1], 3, *size[1:]), np.float32)) == -np.inf


class Windows(Network):
    """Attention within squares of 8 x 8, by PyTorch's own layer."""

    multiple = 8

    def __init__(self, *, scale: int) -> None:
        super().__init__(scale=scale)
        self.head = nn.Conv2d(3, 8, 3, padding=1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.tail = nn.Sequential(nn.Conv2d(8, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def enlarge(self, x: Tensor) -> Tensor:
        x = self.head(x)
        batch, channels, height, width = x.shape
        cells = x.reshape(batch, channels, height // 8, 8, width // 8, 8).permute(0, 2, 4, 3, 5, 1)
        tokens = cells.reshape(-1, 64, channels)
        y: Tensor = self.attention(tokens, tokens, tokens, need_weights=False)[0].reshape(cells.shape)
        y = self.tail(x + y.permute(0, 5, 1, 3, 2, 4).reshape(x.shape))
        return y


@pytest.mark.parametrize("fast", [True, False])
def test_attention_of_pytorch_is_exported(fast: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    try:
        assert max(export(Windows(scale=2), tmp_path / "a.onnx").values()) < TOLERANCE
        assert torch.backends.mha.get_fastpath_enabled() == fast
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def test_what_onnx_cannot_take_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = torch._C._jit_onnx_log
    with pytest.raises(FinescaleError, match=r"^ONNX cannot take this network \(.*\)$"):
        export(Singular(scale=2), tmp_path / "a.onnx")
    assert capfd.readouterr() == ("", ""), "nor PyTorch's dump of the graph"
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch._C._jit_onnx_log is before


class Singular(Network):
    def enlarge(self, x: Tensor) -> Tensor:
        return F.interpolate(x + torch.linalg.svdvals(x).mean(), scale_factor=2)


def test_an_operation_that_openvino_lacks_is_told_in_a_sentence(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    with pytest.raises(FinescaleError, match=r"^OpenVINO cannot take this network \(.*\)$"):
        export(Singular(scale=2), tmp_path / "a.xml", format="openvino")
    assert not list(tmp_path.iterdir())
