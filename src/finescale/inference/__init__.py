"""A network applied to a picture of any size: tiling, local statistics, self-ensemble, engines, files."""

from finescale import open_room

ENGINES = ("auto", "torch", "openvino", "mnn", "onnx")
PRECISIONS = ("auto", "float32", "bfloat16", "int8")

open_room(__name__)
