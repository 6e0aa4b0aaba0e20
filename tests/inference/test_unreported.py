"""What OpenVINO would tell its makers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_openvino_is_imported_without_its_telemetry(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("openvino_telemetry")
    program = """
import logging, sys
from finescale.inference.engines.openvino import load_core
load_core()
assert "openvino_telemetry" not in sys.modules
assert not logging.getLogger().handlers
import openvino_telemetry
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "TF_BUILD", "JENKINS_URL")}
    environment |= {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
