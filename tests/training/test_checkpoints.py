"""A checkpoint is whole or not there."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import torch

from finescale.errors import FinescaleError
from finescale.training import checkpoints


def state(step: int) -> dict[str, Any]:
    return {"weights": torch.full((100,), float(step)), "step": step}


def test_last_previous_and_best(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert not checkpoints.present(run)
    for step in range(4):
        checkpoints.save(run, state(step), best=step == 1)
    steps = {name: checkpoints.read(run / name)["step"] for name in ("last.ckpt", "previous.ckpt", "best.ckpt")}
    assert steps == {"last.ckpt": 3, "previous.ckpt": 2, "best.ckpt": 1}
    assert sorted(path.name for path in run.iterdir()) == ["best.ckpt", "last.ckpt", "previous.ckpt"]
    assert checkpoints.present(run)


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "foreign"])
def test_a_damaged_one_is_found_and_the_one_before_it_used(tmp_path: Path, damage: str) -> None:
    for step in range(2):
        checkpoints.save(tmp_path, state(step))
    last = tmp_path / "last.ckpt"
    content = bytearray(last.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    contents: dict[str, bytes | bytearray] = {"cut": content[:-10], "empty": b"", "foreign": b"PK" + content}
    last.write_bytes(contents.get(damage, content))
    with pytest.warns(UserWarning, match=r"last\.ckpt: .*; going on from previous\.ckpt"):
        found = checkpoints.read_last(tmp_path)
    assert found is not None
    assert found["step"] == 0
    (tmp_path / "previous.ckpt").write_bytes(b"")
    with pytest.raises(FinescaleError, match="no whole one"):
        checkpoints.read_last(tmp_path)


def test_a_half_written_one_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.save(tmp_path, state(0))

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FinescaleError, match="no space left"):
        checkpoints.save(tmp_path, state(1))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert checkpoints.read(tmp_path / "last.ckpt")["step"] == 0


def test_nothing_to_go_on_from(tmp_path: Path) -> None:
    assert checkpoints.read_last(tmp_path) is None


def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    for step in range(2):
        checkpoints.save(tmp_path, state(step), best=True)
    assert checkpoints.read(tmp_path / "previous.ckpt")["step"] == 0
    assert checkpoints.read(tmp_path / "best.ckpt")["step"] == 1


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"thing": Path("x")})
    with pytest.raises(FinescaleError, match=r"last\.ckpt: not a checkpoint of tensors and plain values"):
        checkpoints.read(tmp_path / "last.ckpt")


def test_a_kill_while_a_damaged_one_is_replaced_leaves_the_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(2):
        checkpoints.save(tmp_path, state(step))
    (tmp_path / "last.ckpt").write_bytes(b"")
    replace = os.replace

    def kill(source: Path, target: Path) -> None:
        if target.name == "last.ckpt":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", kill)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, state(2))
    with pytest.warns(UserWarning, match=r"last\.ckpt: .*; going on from previous\.ckpt"):
        found = checkpoints.read_last(tmp_path)
    assert found is not None
    assert found["step"] == 0


@pytest.mark.skipif(os.name != "posix", reason="folders are locked on POSIX systems only")
def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    with checkpoints.alone(tmp_path / "run"):
        with (
            pytest.raises(FinescaleError, match="another process is training there"),
            checkpoints.alone(tmp_path / "run"),
        ):
            pass
        assert list((tmp_path / "run").iterdir()) == []
    assert not (tmp_path / "run").exists()  # nothing came into it
    with checkpoints.alone(tmp_path / "run"):
        (tmp_path / "run" / "something").touch()
    assert (tmp_path / "run" / "something").exists()


def test_a_folder_that_is_a_file_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(FinescaleError, match="run: cannot be written"), checkpoints.alone(tmp_path / "run"):
        pass
    with pytest.raises(FinescaleError, match="the checkpoint could not be written"):
        checkpoints.save(tmp_path / "run", state(1))


@pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX systems only")
def test_a_file_system_that_flushes_no_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = os.fsync

    def refuse(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")
        flush(handle)

    monkeypatch.setattr(os, "fsync", refuse)
    checkpoints.save(tmp_path, state(3))
    assert checkpoints.read(tmp_path / "last.ckpt")["step"] == 3
