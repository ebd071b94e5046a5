"""The reference cases of the transformer and the sampler, run by all ranks together.

torchrun --nproc-per-node N goldens.py SPLIT OUT.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors import safe_open

from magi_world.model.vae import VAE
from magi_world.parallel.channel import Channel, next_orders
from magi_world.parallel.dit import RankDiT
from magi_world.parallel.follow import Follower
from magi_world.parallel.lead import LeadCache, LeadDiT
from magi_world.parallel.ranks import Ranks, torchrun_place
from magi_world.parallel.split import parse_split, part_of
from magi_world.sampling.kv_cache import CacheConfig
from tests.reference.forward import check_forward, load_reference_dit
from tests.reference.released import dit_config_from_released
from tests.reference.sampler import check_sampler

GOLDEN = Path(__file__).parents[1] / "golden"


def main(split_text: str, out: str) -> None:
    """Rank 0 writes the errors of every case."""
    torch.set_num_threads(1)
    place = torchrun_place()
    assert place is not None
    split = parse_split(split_text, place.size)
    assert split is not None
    ranks = Ranks(place, split, torch.device("cpu"))
    found: dict[str, dict[str, float]] = {}
    for file in sorted(GOLDEN.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            metadata = opened.metadata() or {}
            case = json.loads(metadata.get("case", "{}"))
            if case.get("kind") not in ("forward", "sampler"):
                continue
            if split.stages > case["config"]["model_config"]["num_layers"]:
                continue
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        if case["kind"] == "forward":
            found[file.name] = check_forward(
                case, tensors, GOLDEN, lambda config: Strict(config, ranks)
            )
        elif place.leads:
            channel = Channel(ranks)
            config = dit_config_from_released(case["config"])
            parts = [part_of(split, config, rank) for rank in range(split.size)]

            def cache(sizes: CacheConfig, channel=channel, parts=parts) -> LeadCache:
                return LeadCache(sizes, channel, parts)

            with torch.inference_mode():
                found[file.name] = check_sampler(
                    case,
                    tensors,
                    GOLDEN,
                    lambda config, channel=channel: StrictLead(config, channel),
                    cache,
                )
            with channel.call(["end"]):
                pass
        else:
            weights = GOLDEN / f"{case['weights']}.safetensors"
            dit = load_reference_dit(
                weights, case["config"], torch.float32, lambda config: Strict(config, ranks)
            )
            follower = Follower(ranks, dit, VAE.__new__(VAE))
            while follower.obey(next_orders(ranks)):
                pass
    if place.leads:
        Path(out).write_text(json.dumps(found))
    ranks.leave()


class Strict(RankDiT):
    """Takes of a state dict what is its own."""

    def load_state_dict(self, state, strict=True, assign=False):
        mine = {name: value for name, value in state.items() if not name.startswith(self.foreign)}
        return super().load_state_dict(mine, strict, assign)


class StrictLead(LeadDiT, Strict):
    """The same at rank 0."""


if __name__ == "__main__":
    main(*sys.argv[1:])
