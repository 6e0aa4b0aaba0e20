"""The cache of compiled networks: whole entries or none, whatever happens to its files."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import needs, tiny_network

from finescale.inference.engines import choose, compiled


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "finescale" / "compiled"


def test_gives_back_what_was_stored(folder: Path) -> None:
    assert compiled.read("a") is None
    compiled.write("a", {"scale": 2}, b"data")
    assert compiled.read("a") == ({"scale": 2}, b"data")
    assert [path.name for path in folder.iterdir()] == ["a"]
    compiled.remove("a")
    compiled.remove("a")
    assert compiled.read("a") is None


@pytest.mark.parametrize("damage", ["empty", "cut", "changed", "longer"])
def test_damaged_entries_are_not_read(folder: Path, damage: str) -> None:
    compiled.write("a", {"scale": 2}, bytes(1000))
    path = folder / "a"
    data = path.read_bytes()
    changed = {"empty": b"", "cut": data[:500], "changed": data[:500] + b"x" + data[501:], "longer": data + b"x"}
    path.write_bytes(changed[damage])
    assert compiled.read("a") is None


def test_keys_differ_in_everything_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    one = compiled.key(weights="a", engine="x 1")
    assert one == compiled.key(engine="x 1", weights="a")
    assert one != compiled.key(weights="b", engine="x 1")
    assert one != compiled.key(weights="a", engine="x 2")
    for what, value in (("VERSION", compiled.VERSION + 1), ("abilities", lambda: "another")):
        with monkeypatch.context() as place:
            place.setattr(compiled, what, value)
            assert one != compiled.key(weights="a", engine="x 1")


def test_a_cache_that_cannot_be_written_is_no_error(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")
    compiled.write("a", {}, b"data")
    assert compiled.read("a") is None


WRITER = """
import sys
from finescale.inference.engines import compiled
for i in range(150):
    compiled.write("a", {"by": sys.argv[1]}, sys.argv[1].encode() * 20000)
    entry = compiled.read("a")
    assert entry is not None, "half an entry"
    assert entry[1] == entry[0]["by"].encode() * 20000, "a mixed entry"
"""


def test_two_processes_at_once(folder: Path) -> None:
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, letter], env=dict(os.environ), stderr=subprocess.PIPE, text=True
        )
        for letter in "xy"
    ]
    for process in running:
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait() == 0, said
    assert [path.name for path in folder.iterdir()] == ["a"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnx", "mnn", "openvino"])
def test_an_engine_survives_a_damaged_cache(folder: Path, engine: str) -> None:
    needs(engine)
    network, x = tiny_network(2, blocks=1), np.random.default_rng(0).random((1, 3, 30, 41), np.float32)
    wanted = choose(network, engine=engine, precision="float32").run(x)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    np.testing.assert_allclose(choose(network, engine=engine, precision="float32").run(x), wanted, atol=1e-6)
    if engine == "openvino":  # whole by its checksum, but not what OpenVINO can read
        for path in folder.iterdir():
            entry = compiled.read(path.name)
            assert entry is not None
            compiled.write(path.name, entry[0], b"from another version")
        np.testing.assert_allclose(choose(network, engine=engine, precision="float32").run(x), wanted, atol=1e-6)


def test_what_was_long_not_used_goes_where_all_is_too_much(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "LIMIT", 3500)
    for i, name in enumerate("abc"):
        compiled.write(name, {}, bytes(1000))
        os.utime(folder / name, (1000 + i, 1000 + i))
    (folder / ".d.0000.part").write_bytes(b"a writer that was killed")
    os.utime(folder / ".d.0000.part", (1000, 1000))
    assert compiled.read("a") is not None  # so it is b that was longest not used
    compiled.write("e", {}, bytes(1000))
    assert sorted(path.name for path in folder.iterdir()) == ["a", "c", "e"]
    compiled.write("f", {}, bytes(9000))  # more than there may be: what is in use now is left alone
    assert sorted(path.name for path in folder.iterdir()) == ["a", "e", "f"]


FORKED = """
import os, threading
from finescale.inference.engines import compiled, mnn
held, done = threading.Event(), threading.Event()

def work():
    with compiled._MAKING, mnn._LOADING:
        held.set()
        done.wait()

thread = threading.Thread(target=work)
thread.start()
held.wait()
process = os.fork()
if not process:
    free = compiled._MAKING.acquire(timeout=5) and mnn._LOADING.acquire(timeout=5)
    os._exit(0 if free else 1)
done.set()
assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, "it would wait for a thread that it does not have"
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_waits_for_no_thread_of_its_parent() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True)
