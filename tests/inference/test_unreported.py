"""What OpenVINO and ONNX Runtime would tell their makers."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

OPENVINO = """
import logging, sys
from finescale.inference.engines.openvino import load_core
load_core()
assert "openvino_telemetry" not in sys.modules
assert not logging.getLogger().handlers
import openvino_telemetry
"""
ONNX = """
import os
from finescale.inference.engines.onnx import load_runtime
load_runtime()
assert "ORT_DISABLE_TELEMETRY" not in os.environ
"""


@pytest.mark.slow
@pytest.mark.parametrize(("package", "program"), [("openvino_telemetry", OPENVINO), ("onnxruntime", ONNX)])
def test_use_is_not_reported(package: str, program: str, tmp_path: Path) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    left_out = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    environment |= {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
