"""The training loop: a budget in minutes, a schedule by the share of it that is spent, averaged weights."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import nn

from finescale.data.crops import Crops


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a function of the share of the budget that is spent: warm-up, flat, cosine decay to zero."""

    rate: float = 1e-3
    warmup: float = 0.02
    decay_from: float = 0.3

    def at(self, spent: float) -> float:
        if spent < self.warmup:
            return self.rate * max(spent, 1e-4) / self.warmup
        if spent < self.decay_from:
            return self.rate
        done = min(1.0, (spent - self.decay_from) / (1 - self.decay_from))
        return self.rate * 0.5 * (1 + math.cos(math.pi * done))


def fit(
    network: nn.Module,
    crops: Crops,
    *,
    out: Path,
    minutes: float,
    batch: int = 16,
    schedule: Schedule | None = None,
    average: float = 0.999,
    clip: float = 1.0,
    validate: Callable[[nn.Module], float] | None = None,
    every: float = 300.0,
) -> nn.Module:
    """Trains with L1 and Adam for a budget of minutes of training time; gives the averaged network.

    Saves `out`/state.pt every `every` seconds and goes on from it where there is one.
    """
    schedule = schedule or Schedule()
    device = next(network.parameters()).device
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=schedule.rate, betas=(0.9, 0.99), fused=True)
    averaged = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(average), use_buffers=True
    )
    out.mkdir(parents=True, exist_ok=True)
    state = out / "state.pt"
    spent, step, skipped = 0.0, 0, 0
    if state.exists():
        saved = torch.load(state, map_location=device, weights_only=True)
        network.load_state_dict(saved["network"])
        averaged.load_state_dict(saved["averaged"])
        optimiser.load_state_dict(saved["optimiser"])
        crops.generator.set_state(saved["generator"].cpu())
        spent, step = saved["spent"], saved["step"]

    def save() -> None:
        part = out / "state.pt.part"
        torch.save(
            {
                "network": network.state_dict(),
                "averaged": averaged.state_dict(),
                "optimiser": optimiser.state_dict(),
                "generator": crops.generator.get_state(),
                "spent": spent,
                "step": step,
            },
            part,
        )
        os.replace(part, state)

    (out / "schedule.json").write_text(json.dumps(asdict(schedule) | {"batch": batch, "minutes": minutes}))
    budget, saved_at, running, before = minutes * 60, spent, 0.0, time.monotonic()
    while spent < budget:
        for group in optimiser.param_groups:
            group["lr"] = schedule.at(spent / budget)
        low, high = crops.batch(batch)
        low = low.to(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16):
            output = network(low)
        loss = nn.functional.l1_loss(output.float(), high)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip)
        if math.isfinite(float(norm)):
            optimiser.step()
            averaged.update_parameters(network)
        else:
            skipped += 1
        step += 1
        running += (float(loss.detach()) - running) / min(step, 100)
        now = time.monotonic()
        spent, before = spent + now - before, now
        if step % 100 == 0:
            print(f"step {step} {spent / 60:.1f}/{minutes:g} min loss {running:.5f} skipped {skipped}", flush=True)
        if spent - saved_at > every or spent >= budget:
            saved_at = spent
            save()
            if validate is not None:
                averaged.eval()
                print(f"step {step} validation {validate(averaged.module):.3f} dB", flush=True)
            before = time.monotonic()
    return averaged.module
