"""The package's own functions, however it was imported."""

import subprocess
import sys

import pytest

import finescale


@pytest.mark.slow
@pytest.mark.parametrize(
    "before", ["", "import finescale.networks.catalogue", "finescale.load", "finescale.networks.catalogue.NETWORKS"]
)
def test_networks_can_be_called_and_entered(before: str) -> None:
    code = f"import finescale; {before}\nassert 'rcan' in finescale.networks()\n"
    code += "assert finescale.networks.catalogue.NETWORKS\nassert 'rcan' in finescale.networks()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_errors_that_callers_tell_apart_are_public() -> None:
    assert issubclass(finescale.UsageError, finescale.FinescaleError)
    assert issubclass(finescale.TakenError, finescale.FinescaleError)  # a result that is there already
    assert {"FinescaleError", "TakenError", "UsageError"} <= set(finescale.__all__)


def test_what_there_is_can_be_listed() -> None:
    code = "import finescale, sys\nassert {'upscale', 'load', 'networks'} <= set(dir(finescale))\n"
    code += "assert 'torch' not in sys.modules and not hasattr(finescale.networks, 'nonsense')"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
