"""Where weights are found, and what is refused: real files, and a real server for those that are elsewhere."""

import functools
import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.conftest import bound_by_permissions

import finescale
from finescale.atomic import sha256
from finescale.cli import main as cli
from finescale.errors import FinescaleError, FinescaleWarning, UsageError
from finescale.evaluation.contenders import check_names, contender
from finescale.inference.upscale import Upscaler
from finescale.networks import DEFAULT
from finescale.networks.base import Network
from finescale.networks.catalogue import build
from finescale.web import studio
from finescale.weights import files, places, store
from finescale.weights.overview import overview
from finescale.weights.places import INDEX, file_name, list_file, verify

NAME = file_name(DEFAULT, 3)


def tiny(seed: int = 0, scale: int = 3) -> Network:
    torch.manual_seed(seed)
    return build(DEFAULT, scale=scale, channels=16, groups=1, blocks=1)


def put(folder: Path, seed: int = 0, *, listed: bool = True) -> Path:
    """A weight file in a folder, and the folder's index."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    files.save(tiny(seed), path, dtype=torch.float32)
    if listed:
        (folder / INDEX).write_text(json.dumps({NAME: {"sha256": sha256(path)}}))
    return path


def first(network: Network) -> float:
    return float(next(network.parameters()).detach().flatten()[0])


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this machine is found."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("FINESCALE_WEIGHTS", raising=False)
    monkeypatch.delenv("FINESCALE_WEIGHTS_URL", raising=False)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a local server serves as the download address."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,))
    thread.start()
    monkeypatch.setenv("FINESCALE_WEIGHTS_URL", f"http://127.0.0.1:{httpd.server_port}")
    yield folder
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of the package are left out of the search, so that the one that ships does not answer for others."""
    monkeypatch.setattr("finescale.weights.places.candidates", lambda: [folder])


def test_a_named_folder_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "mine", 1)
    put(tmp_path / "cache" / "finescale" / "weights", 2)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path / "mine"))
    assert first(store.load(DEFAULT, 3)) == first(tiny(1))


def test_a_path_comes_before_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "mine", 1)
    path = put(tmp_path / "other", 3)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path / "mine"))
    assert first(store.load(path, 3)) == first(tiny(3))


def test_a_name_of_ones_own_is_found_like_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "mine", 1)
    path.rename(path.with_name("own-x3.safetensors"))
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(path.parent))
    assert store.scales("own") == [3]
    assert first(store.load("own")) == first(store.load("own", 3)) == first(tiny(1))
    check_names(["own"], 3)
    assert contender("own", 3).weights == path.with_name("own-x3.safetensors")
    assert (studio.networks()["own"].summary, studio.networks()["own"].scales) == (
        "weights of your own for sa-rcan-light",
        [3],
    )
    row = next(row for row in overview() if row.name == "own")
    assert (row.scales, row.summary) == ([3], "weights of your own for sa-rcan-light")
    assert row.parameters == sum(parameter.numel() for parameter in tiny().parameters())
    assert "own" in finescale.networks(trained=True)
    assert "own" not in finescale.networks()
    other = tiny()
    assert other.config is not None
    other.config = replace(other.config, name="mine", architecture="Mine")  # of another program, which has the class
    files.save(other, path.with_name("mine-x3.safetensors"))
    assert "mine" not in studio.networks()
    assert "mine" not in finescale.networks(trained=True)
    with pytest.raises(UsageError, match="'own' is for x3 only, not for x2"):
        check_names(["own"], 2)
    for wrong in (lambda: check_names(["owm"], 2), lambda: store.scales("owm"), lambda: store.load("owm")):
        with pytest.raises(UsageError, match="neither a network nor a weight file"):
            wrong()
    with pytest.raises(UsageError, match=r"^'own' is here for x3 only, not for x2$"):
        store.load("own", 2)


def test_one_unreadable_file_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    good = put(mine)
    damaged = mine / "rcan-x4.safetensors"
    damaged.write_bytes(good.read_bytes()[:200])
    (mine / f"._{good.name}").write_bytes(b"of macOS")
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(mine))
    with pytest.warns(FinescaleWarning, match=rf"{damaged.name}: not a readable safetensors file"):
        assert good in [found.path for found in store.available()]
    with pytest.warns(FinescaleWarning):
        assert cli.main(["networks"]) == 0
    assert "With weights" in capsys.readouterr().out
    with pytest.warns(FinescaleWarning):
        assert not {"rcan", f"._{DEFAULT}"}.intersection(finescale.networks(trained=True))
    with pytest.warns(FinescaleWarning):
        assert DEFAULT in studio.networks()
    said = (
        r"no trained weights for edsr x2 on this machine \(untrained: finescale\.networks\.catalogue\.build\('edsr', "
        rf"scale=2\); `finescale convert`.*a checkout's weights; found: .*\b{DEFAULT} x2 x3 x4, .*searched: "
    )
    with pytest.raises(FinescaleError, match=said):
        store.load("edsr", 2)


def test_only_a_checkout_has_a_folder_beside_its_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    root = Path(places.__file__).parents[3]
    assert (root / "weights" in places.candidates()) == (root / "pyproject.toml").is_file()
    installed = tmp_path / "python3" / "site-packages" / "finescale" / "weights" / "places.py"
    monkeypatch.setattr(places, "__file__", str(installed))
    (tmp_path / "python3" / "weights").mkdir(parents=True)
    assert tmp_path / "python3" / "weights" not in places.candidates()


def test_a_file_with_unknown_arguments_is_refused_by_name(tmp_path: Path) -> None:
    path = put(tmp_path / "mine")
    length = int.from_bytes(path.read_bytes()[:8], "little")
    head, body = path.read_bytes()[8 : 8 + length], path.read_bytes()[8 + length :]
    changed = head.replace(b"channels", b"chanels_")
    assert changed != head
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + body)
    with pytest.raises(FinescaleError, match=rf"{path.name}: .*chanels_") as caught:
        files.load(path)
    assert not isinstance(caught.value, UsageError)


def test_a_cache_that_cannot_be_written_is_told_in_a_sentence(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(server, 4)
    only(tmp_path / "nothing", monkeypatch)
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(FinescaleError, match=r"x3\.safetensors: cannot be written"):
        store.load(DEFAULT, 3)


def test_an_index_that_is_damaged_is_not_replaced(tmp_path: Path) -> None:
    path = put(tmp_path / "mine")
    path.with_name(INDEX).write_text("[1]")
    with pytest.raises(FinescaleError, match="damaged index"):
        list_file(path, "0" * 64)
    assert path.with_name(INDEX).read_text() == "[1]"


def test_a_path_of_another_scale_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path)
    with pytest.raises(UsageError, match="enlarges x3, not x2"):
        store.load(path, 2)
    assert store.load(path).scale == 3


def test_a_file_of_another_scale_than_its_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path)
    for name in (DEFAULT, "own"):
        wrong = path.with_name(f"{name}-x4.safetensors")
        wrong.write_bytes(path.read_bytes())
        monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path))
        for take in (store.load, lambda name, scale: Upscaler(name, scale=scale)):
            with pytest.raises(UsageError, match=f"{re.escape(str(wrong))}: enlarges x3, not x4"):
                take(name, 4)
    with pytest.warns(FinescaleWarning, match=r"x4\.safetensors: enlarges x3, not x4"):
        assert not [found for found in store.available() if (found.name, found.scale) == ("own", 4)]


def test_a_folder_of_weights_that_is_not_there_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(tmp_path / "gone"))
    with pytest.warns(FinescaleWarning, match="gone: \\$FINESCALE_WEIGHTS names this folder, which cannot be searched"):
        assert store.find(DEFAULT, 2)


@pytest.mark.parametrize("name", ["index.json", f"{DEFAULT}-x3.safetensors"])
def test_weights_that_may_not_be_read_are_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path)
    list_file(path, sha256(path))
    monkeypatch.chdir(tmp_path)  # to which not everybody may find the way
    monkeypatch.setenv("FINESCALE_WEIGHTS", ".")
    tmp_path.chmod(0o755)
    Path(name).chmod(0)
    with bound_by_permissions(), pytest.raises(FinescaleError, match=r"(?i)permission denied"):
        Upscaler(DEFAULT, scale=3)


@pytest.mark.parametrize("scale", [5, 0, "4"])
def test_scales_that_no_network_has(scale: int) -> None:
    with pytest.raises(UsageError, match="scale is 2, 3 or 4"):
        store.load(DEFAULT, scale)


def test_an_index_may_have_the_mark_of_editors_on_windows(tmp_path: Path) -> None:
    path = put(tmp_path / "mine")
    index = path.with_name(INDEX)
    index.write_text(index.read_text("utf-8"), "utf-8-sig")
    assert verify(path)


@pytest.mark.parametrize("byte", [-1, 200])
def test_a_changed_file_is_refused_by_name(tmp_path: Path, byte: int, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "mine")
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
    monkeypatch.setenv("FINESCALE_WEIGHTS", str(path.parent))
    for network in (DEFAULT, path):
        with pytest.raises(FinescaleError, match=f"{NAME}: its SHA-256 is not the one listed"):
            store.load(network, 3)


def test_a_truncated_file_without_index_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path, listed=False)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FinescaleError, match="not a readable safetensors file"):
        store.load(path, 3)


def test_what_is_nowhere_is_said_with_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    only(tmp_path, monkeypatch)
    with pytest.raises(FinescaleError, match="no trained weights for rcan x4"):
        store.load("rcan", 4)
    with pytest.raises(UsageError, match="did you mean 'rcan'"):
        store.load("rcn", 4)


def test_weights_are_downloaded_verified_and_kept(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache" / "finescale" / "weights"
    only(cache, monkeypatch)
    put(server, 4)
    assert first(store.load(DEFAULT, 3)) == first(tiny(4))
    shutil.rmtree(server)
    assert first(store.load(DEFAULT, 3)) == first(tiny(4))  # from the cache
    with open(cache / NAME, "r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    with pytest.raises(FinescaleError, match="SHA-256"):  # and it is still held to what was published
        store.load(DEFAULT, 3)


def test_a_download_that_is_not_what_was_published_is_not_kept(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache" / "finescale" / "weights"
    only(cache, monkeypatch)
    put(server, 4)
    files.save(tiny(5), server / NAME, dtype=torch.float32)
    with pytest.raises(FinescaleError, match="SHA-256"):
        store.load(DEFAULT, 3)
    assert not (cache / NAME).exists()


@pytest.mark.parametrize("index", ["{", "[]", '{"%s": {}}' % NAME, '{"%s": 5}' % NAME])  # noqa: UP031
def test_a_broken_index_is_an_error_in_a_sentence(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch, index: str
) -> None:
    only(tmp_path / "cache", monkeypatch)
    put(server)
    (server / INDEX).write_text(index)
    with pytest.raises(FinescaleError, match="http://127"):
        store.load(DEFAULT, 3)


def test_a_server_without_the_network_leaves_it_missing(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(tmp_path / "cache", monkeypatch)
    put(server)
    with pytest.raises(FinescaleError, match="no trained weights for rcan x2"):
        store.load("rcan", 2)


@pytest.mark.parametrize("address", ["nonsense", "localhost:8000", "http://[1", "http://a b", "http://a:b"])
def test_what_is_not_an_address_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    only(tmp_path, monkeypatch)
    monkeypatch.setenv("FINESCALE_WEIGHTS_URL", address)
    with pytest.raises(FinescaleError, match=rf"\$FINESCALE_WEIGHTS_URL: '{re.escape(address)}' is not an address \("):
        store.load(DEFAULT, 3)


def test_an_address_that_answers_nothing_is_an_error_in_a_sentence(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(tmp_path / "cache", monkeypatch)
    with pytest.raises(FinescaleError, match="404"):
        store.load(DEFAULT, 3)


def test_scales_at_an_address_are_those_of_its_index(
    server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(tmp_path / "nothing", monkeypatch)
    (server / INDEX).write_text(json.dumps({"rcan-x2.safetensors": {"sha256": "00"}, "x": {"sha256": "11"}}))
    assert store.scales("rcan") == [2]
    with pytest.raises(FinescaleError, match="no trained weights for sa-rcan on this machine"):
        store.scales("sa-rcan")


def test_a_name_of_ones_own_is_found_at_the_address(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(tmp_path / "cache" / "finescale" / "weights", monkeypatch)
    path = put(server, 4).rename(server / "own-x3.safetensors")
    (server / INDEX).write_text(json.dumps({path.name: {"sha256": sha256(path)}}))
    assert finescale.networks(trained=True) == [], "nobody asks the address for a list"
    assert store.scales("own") == [3]
    with pytest.raises(UsageError, match=r"'own' is at \$FINESCALE_WEIGHTS_URL for x3 only, not for x2"):
        store.load("own", 2)
    for name in ("owm", str(path.parent / "own"), "own-x3.safetensors"):
        with pytest.raises(UsageError, match=f"'{name}' is neither"):
            store.load(name)
    assert first(store.load("own")) == first(tiny(4))
    shutil.rmtree(server)
    assert first(store.load("own", 3)) == first(tiny(4))  # from the cache
    assert finescale.networks(trained=True) == ["own"]
    files.save(tiny(5), tmp_path / "cache" / "finescale" / "weights" / "own-x3.safetensors")
    with pytest.raises(FinescaleError, match="SHA-256"):
        store.load("own")
    with pytest.raises(UsageError, match=r"'nowhere/own' is neither"):  # for a path the address is not asked
        store.load("nowhere/own")


def test_a_foreign_name_that_is_not_what_was_published_is_refused(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(tmp_path / "cache" / "finescale" / "weights", monkeypatch)
    put(server, 4).rename(server / "own-x3.safetensors")
    (server / INDEX).write_text(json.dumps({"own-x3.safetensors": {"sha256": "0" * 64}}))
    with pytest.raises(FinescaleError, match="what arrived is not what was published"):
        store.load("own")


@pytest.mark.parametrize("length", [0, 8, 63])
def test_a_download_without_a_whole_sha256_is_refused(
    tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    only(tmp_path / "cache", monkeypatch)
    digest = sha256(put(server))
    (server / INDEX).write_text(json.dumps({NAME: {"sha256": digest[:length]}}))
    with pytest.raises(FinescaleError, match=f"says no SHA-256 of {NAME}"):
        store.load(DEFAULT, 3)
    assert not (tmp_path / "cache").exists()


def test_a_sha256_may_be_in_capitals(tmp_path: Path, server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache" / "finescale" / "weights"
    only(cache, monkeypatch)
    digest = sha256(put(server, 4))
    for folder in (server, cache):
        (folder / INDEX).write_text(json.dumps({NAME: {"sha256": digest.upper()}}))
        assert first(store.load(DEFAULT, 3)) == first(tiny(4))


def test_an_empty_sha256_in_a_folder_is_not_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "mine")
    (path.parent / INDEX).write_text(json.dumps({NAME: {"sha256": ""}}))
    with pytest.raises(FinescaleError, match=f"{NAME}: its SHA-256 is not the one listed"):
        store.load(path, 3)
