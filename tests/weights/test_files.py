"""Weight files explain themselves, and are whole or absent."""

import copy
import errno
import json
import os
import pickle
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from tests.conftest import tiny_network
from torch import Tensor, nn

from finescale.backbones import catalogue as backbones
from finescale.errors import FinescaleError, UsageError
from finescale.networks import DEFAULT, FOR_GRAPHICS, FOR_JPEG
from finescale.networks.base import Config, Network
from finescale.networks.catalogue import NETWORKS, Entry, build
from finescale.training import warm_start
from finescale.training.losses import perception
from finescale.weights import files
from finescale.weights.header import read_header


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 0.0), (torch.float16, 2e-3)])
def test_a_network_comes_back_as_it_was(tmp_path: Path, dtype: torch.dtype, tolerance: float) -> None:
    network = tiny_network(3)
    path = tmp_path / "w.safetensors"
    files.save(network, path, notes={"budget": "1m", "figures": {"Set5": {"psnr": 30.5}}}, dtype=dtype)
    header = read_header(path)
    assert (header.name, header.scale, header.architecture) == (DEFAULT, 3, "RCAN")
    assert header.notes["figures"]["Set5"]["psnr"] == 30.5
    x = torch.rand(1, 3, 20, 17)
    with torch.no_grad():
        assert (files.load(path)(x) - network(x)).abs().max() <= tolerance


class RCAN(Network):
    """A network of a program's own, called as one of Finescale's."""

    def __init__(self, *, scale: int, channels: int = 4) -> None:
        super().__init__(scale=scale)
        self.layers = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.Conv2d(channels, 3, 1))

    def enlarge(self, x: Tensor) -> Tensor:
        return self.layers(x.repeat_interleave(self.scale, 2).repeat_interleave(self.scale, 3))


def test_a_network_of_ones_own_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.safetensors"
    with monkeypatch.context() as place:
        place.setitem(NETWORKS, "own", Entry(RCAN, "of a program's own"))
        network = build("own", scale=3, channels=5)
        files.save(network, path, dtype=torch.float32)
        again = files.load(path)
        assert type(again) is RCAN
        x = torch.rand(1, 3, 5, 4)
        assert torch.equal(again(x), network(x))
        files.save(tiny_network(), tmp_path / "other.safetensors")
        assert type(files.load(tmp_path / "other.safetensors")) is not RCAN
    network.config = Config("own", "Own", {"scale": 3})
    files.save(network, path)
    with pytest.raises(FinescaleError, match=r"class 'Own' that this version lacks .*NETWORKS"):
        files.load(path)


def test_layers_may_share_weights(tmp_path: Path) -> None:
    network = tiny_network()
    first, second = (network.get_submodule(f"body.0.body.{i}.body.0") for i in (0, 1))
    second.weight = first.weight
    files.save(network, tmp_path / "w.safetensors", dtype=torch.float32)
    x = torch.rand(1, 3, 9, 8)
    assert torch.equal(files.load(tmp_path / "w.safetensors")(x), network(x))


def test_it_can_be_read_by_whom_the_system_lets(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        files.save(tiny_network(), tmp_path / "w.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "w.safetensors").stat().st_mode) == 0o644


def test_an_existing_file_stays_whole_where_a_new_one_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    files.save(tiny_network(), path)
    before = path.read_bytes()

    def fail(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FinescaleError, match=r"w\.safetensors: cannot be written"):
        files.save(tiny_network(4), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    network = tiny_network()
    state = network.state_dict()
    state["head.0.weight"] = state["head.0.weight"][:8]
    files.save(network, path, state=state)
    with pytest.raises(FinescaleError, match=r"w\.safetensors: the weights do not fit"):
        files.load(path)


@pytest.mark.parametrize("argument", [{"channels": 60_000}, {"blocks": 10**9}, {"groups": 500, "blocks": 500}], ids=str)
def test_a_small_file_makes_no_large_network(tmp_path: Path, argument: dict[str, int]) -> None:
    path = tmp_path / "w.safetensors"
    files.save(tiny_network(), path)
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    metadata["arguments"] = json.dumps(json.loads(metadata["arguments"]) | argument)
    save_file(tensors, path, metadata)
    with pytest.raises(FinescaleError, match=r"w\.safetensors: .*a larger network than its weights"):
        files.load(path)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ", b"\xff" * 64])
def test_something_else_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(FinescaleError, match=r"w\.safetensors: not a "):
        files.load(path)


def test_no_weight_becomes_infinite(tmp_path: Path) -> None:
    network = build("srcnn", scale=2)
    with torch.no_grad():
        weight = next(network.parameters())
        weight[0, 0, 0, 0] = 70000.0  # float16 ends at 65504
    files.save(network, tmp_path / "w.safetensors")
    assert torch.equal(next(files.load(tmp_path / "w.safetensors").parameters()), weight)


def test_a_network_outside_the_catalogue_is_not_saved(tmp_path: Path) -> None:
    network = build("srcnn", scale=2)
    network.config = None
    with pytest.raises(ValueError, match="catalogue"):
        files.save(network, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_the_manifest_tells_of_the_pictures_that_the_shipped_files_mean() -> None:
    folder = Path(files.__file__).parent / "files"
    page = (folder / "MANIFEST.md").read_text("utf-8")
    counts = {name: int(count) for name, count in re.findall(r"^\| \[(.+?)\]\(\S+\) \| (\d+) \|", page, re.MULTILINE)}
    for path in folder.glob("*.safetensors"):
        notes = read_header(path).notes
        data, drawn = (
            notes["data"],
            re.search(r"(\d+) pictures (?:and (\d+) pairs )?drawn by chance", notes["pictures"]),
        )
        assert "see MANIFEST" in data["licence"]
        found = sum(counts.values())
        if drawn:  # at last with the pairs and 280 of the drawn ones
            found += 280 + int(drawn[2]) if drawn[2] else int(drawn[1])
        assert found == data["pictures"]
        assert bool(drawn) == (read_header(path).name in (FOR_GRAPHICS, FOR_JPEG))
    for title, section in re.findall(r"^### (.+)\n\n((?:\*\*.+\n(?:.+\n)*\n?)+)", page, re.MULTILINE):
        listed = re.findall(r"(?:: |, |,\n)`([^`]+)`", section)
        assert len(set(listed)) == counts.pop(title), title
    assert set(counts) == {"BSDS500, train", "BSDS500, test", "T91 (Yang et al. 2010)"}, "too many to name"


def test_what_would_ruin_a_file_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=r"as floating-point numbers, not as torch\.int8"):
        files.save(tiny_network(), path, dtype=torch.int8)
    with pytest.raises(UsageError, match="these are not the weights of sa-rcan-light: "):
        files.save(tiny_network(), path, state={"foo": torch.zeros(1)})
    with pytest.raises(UsageError, match=r"a network is needed, .* not Conv2d"):
        files.save(nn.Conv2d(3, 3, 1), path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"catalogue\.build makes"):
        files.save(RCAN(scale=2), path)
    assert not any(tmp_path.iterdir())
    files.save(tiny_network(), path)
    assert files.load(path).scale == 2


def test_loading_leaves_the_random_numbers_of_other_threads_alone(tmp_path: Path) -> None:
    files.save(tiny_network(), tmp_path / "w.safetensors")
    drawn, stop = [], threading.Event()

    def draw() -> None:
        while not stop.is_set():
            drawn.append(float(torch.rand((), dtype=torch.float64)))

    thread = threading.Thread(target=draw)
    thread.start()
    try:
        for _ in range(20):
            files.load(tmp_path / "w.safetensors")
    finally:
        stop.set()
        thread.join()
    assert len(set(drawn)) == len(drawn)
    before = torch.get_rng_state()
    files.load(tmp_path / "w.safetensors")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_network_knows_the_notes_of_its_file_and_what_it_started_from(tmp_path: Path) -> None:
    first, second, third = (str(tmp_path / f"{name}.safetensors") for name in "abc")
    fresh = tiny_network()
    assert not fresh.notes
    notes = {"licence": "for research", "budget": "1m", "figures": {"Set5": {"psnr": 30.5}}}
    files.save(fresh, first, notes=notes)
    network = files.load(first)
    assert network.notes == notes
    assert network.state_dict().keys() == fresh.state_dict().keys()
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):  # noqa: S301
        assert twin.notes == notes
    files.save(network, second)
    assert read_header(second).notes == {"started_from": {"licence": "for research"}}
    files.save(files.load(second), third)
    assert read_header(third).notes == {"started_from": {"started_from": {"licence": "for research"}}}
    files.save(files.load(first), third, notes={"data": "mine"})  # notes of one's own do not drop the licence
    assert read_header(third).notes == {"started_from": {"licence": "for research"}, "data": "mine"}
    files.save(network, second, notes={"licence": "mine"})
    assert read_header(second).notes == {"licence": "mine"}
    files.save(fresh, second)
    assert read_header(second).notes == {}


@pytest.mark.parametrize(
    "use",
    [
        lambda path: backbones.find("vgg16", path),
        backbones.read_state,
        lambda path: backbones.load("vgg16", path),
        lambda path: perception("vgg16", path),
        lambda path: perception("vgg19-normalised", path),
        lambda path: files.convert(path, "rcan", 2, f"{path}.safetensors"),
        files.load,
        read_header,
        warm_start.read,
    ],
)
def test_paths_may_be_text(use: Callable[[str], object], tmp_path: Path) -> None:
    path = str(tmp_path / "gone.pth")
    with pytest.raises(FinescaleError, match=f"^{re.escape(path)}: "):
        use(path)
