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
    """

    name: str
    precision: str
    scale: int
    bytes_per_pixel: float

    def run(self, x: Array) -> Array:
        """(B, 3, h, w) float32 in [0, 1] -> (B, 3, scale h, scale w) float32."""
        ...

    def exact(self) -> "Engine | None":
        """The same network in float32, or None where this one is already."""
        ...


def largest_tile(engine: Engine, budget: float, margin: int) -> int:
    """Side of the largest square tile, without margins, whose features fit into `budget` bytes."""
    return max(GRID, int((budget / engine.bytes_per_pixel) ** 0.5) - 2 * margin)
