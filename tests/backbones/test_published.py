"""Backbones against published weight files and pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from finescale.backbones import catalogue
from finescale.backbones.features import ImageNetNormalisation
from finescale.backbones.vgg import NormalisedVGG


def expand(path: Path, network: nn.Module) -> dict[str, Tensor]:
    """Fills a copy of the network's state dict from a product-quantised file (tables of centroids and assignments)."""
    raw = torch.load(path, map_location="cpu", weights_only=True)
    state = {key: value.clone() for key, value in network.state_dict().items()}
    seen = {key for key in state if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    for name, entry in raw.items():
        if name == "fc_bias":
            values = {"fc.bias": entry["bias"]}
        elif "centroids" in entry:
            vectors = entry["centroids"].float()[entry["assignments"].long()]  # (blocks x outputs, length)
            rows = vectors.unflatten(0, (entry["n_blocks"], -1)).transpose(0, 1).flatten(1)
            values = {f"{name}.weight": rows.reshape(state[f"{name}.weight"].shape)}
        else:
            values = {f"{name}.{key}": value for key, value in entry.items()}
        for key, value in values.items():
            assert state[key].shape == value.shape
            state[key] = value.float()
            seen.add(key)
    assert seen == set(state)
    return state


def samples(folder: Path) -> Tensor:
    """(20, 3, 224, 224): shorter side to 256, centre 224, normalised."""
    pictures = []
    for path in sorted(folder.glob("*.JPEG")):
        picture = Image.open(path).convert("RGB")
        ratio = 256 / min(picture.size)
        width, height = (max(256, int(side * ratio)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - 224) / 2), round((height - 224) / 2)
        pictures.append(torch.from_numpy(np.array(picture.crop((left, top, left + 224, top + 224)))))
    return ImageNetNormalisation()(torch.stack(pictures).permute(0, 3, 1, 2).float() / 255)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("resnet18", {250: 224, 650: 567, 750: 858}),
        pytest.param("resnet50", {250: 233, 750: 578}, marks=pytest.mark.slow),
    ],
)
def test_class_predictions_of_quantised_resnets(shared_data: Path, name: str, wrong: dict[int, int]) -> None:
    network = catalogue.build(name).eval()
    network.load_state_dict(expand(shared_data / "weights" / f"{name}_compressed.pth", network))
    with torch.no_grad():
        found = network(samples(shared_data / "imagenet_samples")).argmax(1).tolist()
    assert found == [wrong.get(index, index) for index in range(0, 1000, 50)]


def test_squeezenet_loads_strictly_and_knows_most_samples(shared_data: Path) -> None:
    network = catalogue.load("squeezenet1_1", shared_data / "weights" / "squeezenet1_1.pth")
    with torch.no_grad():
        found = network(samples(shared_data / "imagenet_samples")).argmax(1)
    assert (found == torch.arange(0, 1000, 50)).sum() >= 10  # top-1 accuracy 58 %


def test_normalised_vgg_has_mean_activation_one(shared_data: Path) -> None:
    vgg = NormalisedVGG()
    vgg.layers.load_state_dict(catalogue.read_state(shared_data / "weights" / "vgg19_normalised_to_conv3_1.pth"))
    picture = Image.open(shared_data / "bench" / "HR" / "Set14" / "lenna.webp").convert("RGB").resize((128, 128))
    x = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        maps = vgg.maps(x, ["relu1_1", "relu2_1", "relu3_1"])
    assert [m.shape[1] for m in maps] == [64, 128, 256]
    for m in maps:
        assert 0.3 < float(m.mean()) < 3
