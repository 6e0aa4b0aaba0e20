"""A recorded step is the step itself."""

from pathlib import Path

import pytest
import torch
from tests.training.test_loop import Record
from torch import Tensor, nn

from finescale.networks import catalogue
from finescale.training.loop import Training
from finescale.training.parallel import World
from finescale.training.recipe import parse_recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need an NVIDIA GPU; none is here")


class Random:
    """Different crops at every step, the same for every run."""

    def __init__(self, patch: int) -> None:
        self.patch, self.generator = patch, torch.Generator().manual_seed(0)

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        high = torch.rand((count, 3, 2 * self.patch, 2 * self.patch), generator=self.generator)
        low = nn.functional.avg_pool2d(high, 2)
        return tuple(t.to("cuda", memory_format=torch.channels_last) for t in (low, high))  # type: ignore[return-value]

    def set_patch(self, patch: int) -> None:
        self.patch = patch


def trained(tmp_path: Path, network: str, compile: str, *, capture: bool) -> tuple[Training, list[str]]:
    small = {"channels": 16, "groups": 2, "blocks": 2, "reduction": 4, "attention_reduction": 2}
    recipe = parse_recipe(
        {
            "network": network,
            "scale": 2,
            "arguments": small if network == "sa-rcan" else {},
            "budget": 20,
            "precision": "float32",
            "compile": compile,
            "data": {"batch": 2, "patch": 32, "late_patch": 48, "late_from": 0.6},
            "optimiser": {"kind": "muon", "rate": 1e-3},
            "groups": [{"match": "tail" if network == "sa-rcan" else "out"}, {"match": "", "frozen_until": 0.2}],
        },
        "a test",
    )
    torch.manual_seed(0)
    record = Record()
    training = Training(
        catalogue.build(network, scale=2, **recipe.arguments).cuda(),
        Random(32),
        recipe,
        nn.functional.l1_loss,
        world=World(0, 1, torch.device("cuda", 0)),
        out=tmp_path / f"{network}-{compile}-{capture}",
        observers=[record],
        capture=capture,
    )
    assert training.run()
    return training, record.lines


@pytest.mark.parametrize(("network", "compile"), [("sa-rcan", "off"), ("sa-rcan", "blocks"), ("unet-9", "off")])
def test_recorded_steps_equal_others(tmp_path: Path, network: str, compile: str) -> None:
    """Through a thaw of frozen parameters and a change of the crops' size."""
    (recorded, lines), (other, _) = (trained(tmp_path, network, compile, capture=c) for c in (True, False))
    assert not [line for line in lines if "recorded" in line]
    assert recorded._captured is not None
    assert other._captured is None
    for (name, mine), theirs in zip(recorded.network.state_dict().items(), other.network.state_dict().values()):
        if (
            mine.is_floating_point()
        ):  # cuDNN adds up in another order every time, and the statistics of norms drift most
            difference = (mine - theirs).abs().max()
            assert difference <= 5e-3 * theirs.abs().max() + 5e-3, (name, float(difference))
    assert recorded.progress.loss == pytest.approx(other.progress.loss, rel=1e-2)
