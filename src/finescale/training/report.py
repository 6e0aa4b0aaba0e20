"""How a run goes, for people: a screen, plain lines where there is no screen, and TensorBoard."""

import math
import sys
import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING

from torch import Tensor

from finescale.training.loop import Progress
from finescale.training.recipe import Recipe, to_toml

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_EVERY = 30.0  # seconds between two lines
_WIDE = 140  # columns from which there is room for everything


class Speed:
    """Pictures per second, TFLOP/s and the share of the device's peak, from steps per second.

    Args:
        recipe: of the run.
        crop_flops: floating-point operations of one crop's step, at the recipe's first size of crops.
        peak: FLOP/s that the devices reach in matrix products.
    """

    def __init__(self, recipe: Recipe, crop_flops: float, peak: float) -> None:
        self.recipe, self.crop_flops, self.peak = recipe, crop_flops, peak

    def crops(self, progress: Progress) -> float:
        """Crops per second."""
        return progress.per_second * self.recipe.data.batch

    def flops(self, progress: Progress) -> float:
        """Floating-point operations per second."""
        data = self.recipe.data
        return self.crops(progress) * self.crop_flops * (data.patch_at(progress.spent) / data.patch) ** 2

    def text(self, progress: Progress) -> str:
        """Such as "812 crops/s, 0.31 TFLOP/s (62 % of peak)"."""
        flops = self.flops(progress)
        return f"{self.crops(progress):.0f} crops/s, {flops / 1e12:.3g} TFLOP/s ({flops / self.peak:.0%} of peak)"


def clock(seconds: float) -> str:
    """Such as 0:04:12; "?" where it is not known."""
    if not math.isfinite(seconds):
        return "?"
    minutes, seconds_ = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds_:02d}"


class Screen:
    """A bar with the figures of the moment on a terminal; a line every half minute elsewhere."""

    def __init__(self, name: str, speed: Speed) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn
        from rich.progress import Progress as Bar

        self.speed, self._last = speed, time.monotonic()
        self.bar: Bar | None = None
        if sys.stderr.isatty():
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.fields[text]}", markup=False),
            )
            self.bar = Bar(*columns, console=Console(stderr=True, markup=False))
            self.task = self.bar.add_task(name, total=1.0, text="")
            self.bar.start()

    def tick(self, progress: Progress) -> None:
        """Redraws the bar, or prints a line if it is time."""
        if self.bar:
            self.bar.update(self.task, completed=progress.spent, text=self._text(progress))
        elif time.monotonic() - self._last >= _EVERY or progress.spent >= 1:
            self._last = time.monotonic()
            self.said(self._text(progress))

    def validated(self, progress: Progress, samples: Sequence[Tensor]) -> None:
        """Prints the score."""
        if not progress.step:
            place = ", the start"
        else:
            place = " (the best so far)" if progress.psnr == progress.best else f" (best: {progress.best:.3f})"
        self.said(f"step {progress.step}: validation {progress.psnr:.3f} dB{place}")

    def said(self, text: str) -> None:
        """Prints a line."""
        if self.bar:
            self.bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar:
            self.bar.stop()

    def _text(self, progress: Progress) -> str:
        """What a narrow terminal cuts off comes last."""
        psnr = f", {progress.psnr:.3f} dB" if math.isfinite(progress.psnr) else ""
        wide = self.bar is None or self.bar.console.width >= _WIDE
        speed = self.speed.text(progress) if wide else f"{self.speed.crops(progress):.0f} crops/s"
        return (
            f"{clock(progress.left)} left, {progress.spent:.1%}, step {progress.step}, loss {progress.loss:.5f}{psnr}, "
            f"{speed}"
        )


class Board:
    """TensorBoard scalars and sample pictures, and the recipe as text.

    Args:
        folder: of its files.
        speed: of the run.
        begun: the step from which the run goes on; what a run that was killed wrote of later ones is not shown.

    Raises:
        ImportError: tensorboard is not installed.
    """

    def __init__(self, folder: Path, speed: Speed, begun: int = 0) -> None:
        import tensorboard  # noqa: F401

        self.folder, self.speed, self.begun = folder, speed, begun
        self._last = 0.0

    @cached_property
    def writer(self) -> "SummaryWriter":
        """Makes the folder and the file; when there is something to write, and not for runs that do not begin."""
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self.folder), purge_step=self.begun and self.begun + 1)
        if not self.begun:
            writer.add_text("recipe", indent(to_toml(self.speed.recipe), "    "))  # Markdown's way to leave it as it is
        return writer

    def tick(self, progress: Progress) -> None:
        """Writes scalars every few seconds."""
        if time.monotonic() - self._last < 5 and progress.spent < 1:
            return
        self._last = time.monotonic()
        values = {
            "loss": progress.loss,
            **{f"loss/{name}": value for name, value in progress.terms.items()},
            "learning rate": progress.rate,
            "speed/crops per second": self.speed.crops(progress),
            "speed/TFLOP per second": self.speed.flops(progress) / 1e12,
            "speed/share of peak": self.speed.flops(progress) / self.speed.peak,
            "skipped steps": progress.skipped,
            "share of budget": progress.spent,
        }
        for name, value in values.items():
            self.writer.add_scalar(name, value, progress.step)

    def validated(self, progress: Progress, samples: Sequence[Tensor]) -> None:
        """Writes the score and the pictures."""
        self.writer.add_scalar("validation PSNR-Y", progress.psnr, progress.step)
        for i, sample in enumerate(samples):
            self.writer.add_image(f"bicubic, network, original/{i}", sample.clamp(0, 1), progress.step)
        self.writer.flush()

    def said(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Ends the file."""
        if "writer" in vars(self):
            self.writer.close()
