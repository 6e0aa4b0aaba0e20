"""What every engine offers."""

from typing import Protocol

from finescale.inference.tiling import GRID, Array


class Engine(Protocol):
    """A network on a device, ready to compute.

    Attributes:
        name: "torch", "openvino" or "onnx".
        precision: "float32", "bfloat16" or "int8".
        scale: of the network.
        bytes_per_pixel: memory that the features need for every input pixel, about.
        margin: input pixels of context that a tile needs, a multiple of 48.
        closeness: dB between its picture of a photograph and float32's, where that is worth telling (int8); else None.
    """

    name: str
    precision: str
    scale: int
    bytes_per_pixel: float
    margin: int
    closeness: float | None

    def run(self, x: Array) -> Array:
        """(B, 3, h, w) float32 in [0, 1] -> (B, 3, scale h, scale w) float32."""
        ...

    def exact(self) -> "Engine | None":
        """The same network in float32, or None where this one is already."""
        ...


def fitting_tile(engine: Engine, budget: float, height: int, width: int) -> int:
    """Side of the tiles, without margins, for a picture: all of it if its features fit into `budget` bytes."""
    pixels = budget / engine.bytes_per_pixel
    if height * width <= pixels:
        return max(height, width, GRID)
    return max(GRID, int(pixels**0.5) - 2 * engine.margin)
