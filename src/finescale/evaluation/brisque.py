"""BRISQUE (Mittal, Moorthy and Bovik, IEEE Transactions on Image Processing 21, 2012): how natural a picture looks.

There is no original in it: 36 statistics of the picture's locally normalised luma go into a support vector regression
that was trained on people's opinions of damaged photographs (LIVE). Computed by OpenCV's `quality` module with the
model that OpenCV publishes; its two files are found like those of LPIPS, or where a system's OpenCV has them.
"""

import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from finescale.backbones import metric_files
from finescale.errors import FinescaleError, UsageError, install
from finescale.evaluation.metrics import Pixels, check_rgb
from finescale.evaluation.scoring import SMALLEST

MODEL, RANGE = "brisque_model_live.yml", "brisque_range_live.yml"
_SYSTEM = [Path(root) / "share" / "opencv4" / "quality" for root in (sys.prefix, "/usr", "/usr/local", "/opt/homebrew")]
_SOURCE = "https://github.com/opencv/opencv_contrib/tree/4.x/modules/quality/samples"


@dataclass(frozen=True)
class Brisque:
    """The measure: 0 (natural) to 100 of a picture of at least 32 x 32 pixels; the original is not looked at.

    None for a picture without any texture, of which the statistics do not exist.
    """

    opencv: Any
    model: Any
    key: ClassVar[str] = "brisque"
    label: ClassVar[str] = "BRISQUE"

    def __call__(self, enlarged: Pixels, high: Pixels | None = None) -> float | None:
        """The figure of a picture (H, W, 3) uint8.

        Raises:
            UsageError: not 8-bit RGB, or smaller than 32 x 32.
        """
        check_rgb(enlarged)
        height, width = enlarged.shape[:2]
        if min(height, width) < SMALLEST:
            raise UsageError(
                f"a picture of {width} x {height} is too small for BRISQUE, which needs {SMALLEST} x {SMALLEST}"
            )
        bgr = np.ascontiguousarray(enlarged[..., ::-1])
        if not np.isfinite(self.opencv.quality.QualityBRISQUE_computeFeatures(bgr)).all():
            return None  # OpenCV would call it perfect
        return float(self.model.compute(bgr)[0])


def load() -> Brisque:
    """The measure, ready to use.

    Raises:
        FinescaleError: OpenCV, its module or the model's files are not here; the message says how to get them.
    """
    try:
        opencv = import_module("cv2")
    except ImportError as error:
        raise FinescaleError(f"BRISQUE needs OpenCV: {install('brisque')}") from error
    if not hasattr(getattr(opencv, "quality", None), "QualityBRISQUE_create"):  # another OpenCV beside it hides it too
        raise FinescaleError(
            "BRISQUE needs OpenCV with its contributed modules, and the one that is installed has none: "
            f"uninstall every opencv package, then {install('brisque')}"
        )
    files = [metric_files.find(name, *_SYSTEM) for name in (MODEL, RANGE)]
    if None in files:
        raise FinescaleError(
            f"BRISQUE needs its model: put {MODEL} and {RANGE} from {_SOURCE} into {metric_files.places()}; "
            "on Debian and Ubuntu, apt-get install opencv-data brings them"
        )
    try:
        model = opencv.quality.QualityBRISQUE_create(*map(str, files))
    except opencv.error as error:
        raise FinescaleError(f"{files[0]}: OpenCV cannot read this model of BRISQUE") from error
    return Brisque(opencv, model)
