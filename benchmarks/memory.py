"""Does a world of first-person pictures remember what it turned away from?

    python benchmarks/memory.py [WORLD ...] [--history 4 8 16]

From each of its own starts a world turns left for k chunks and right for as many: what it shows
then should be what was there before. One line for every world, history (chunks of the past in
sight) and k, the `turns`:

- `found`: share of the pictures that are nearer to their own start than to any other (by mean
  squared error; by chance 1 / starts), beside `found_still` for standing still as long, which needs
  less memory;
- `psnr`: of the picture against its start, dB;
- `medkits`: of the starts by day with a medkit on the floor, the share with one in the same place
  again.

No simulator is needed, because whoever has turned back sees what was there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from common import note, options, report
from torch import Tensor

from magi_world import load_world
from magi_world.loading import DEFAULT_WORLD
from magi_world.world.world import World

TURNS = (1, 2, 3, 4)  # chunks away, and as many back
WHITE = 130  # least of the three colours of a medkit's box by day; the floor's is below 110
SPECKS = 3  # white pixels that count as a medkit
NEAR = 5  # pixels by which it may have moved
BATCH = 8  # worlds side by side


def main() -> None:
    """Turn away and back, print."""
    parser = options(__doc__, seconds=0)
    parser.add_argument("worlds", nargs="*", default=[DEFAULT_WORLD], help="names or folders")
    parser.add_argument("--history", type=int, nargs="*", default=[None], help="default: its own")
    given = parser.parse_args()
    for name in given.worlds:
        for history in given.history:
            world = load_world(name, BATCH, history=history)
            for turns in TURNS[:1] if given.tiny else TURNS:
                figures = memory(world, turns, BATCH if given.tiny else world.spec.num_starts)
                last = turns == TURNS[-1] and (name, history) == (
                    given.worlds[-1],
                    given.history[-1],
                )
                known = {"world": name, "history": history, "turns": turns}
                report("memory", known | figures, last or given.tiny)
                note(f"{name}, history {history}, {turns} chunks away: {figures['found']:.2f}")


def memory(world: World, turns: int, starts: int) -> dict[str, float]:
    """The figures of one world and one length."""
    seen, back = dreamed(world, starts, ["turn left"] * turns + ["turn right"] * turns)
    _, still = dreamed(world, starts, ["stand still"] * 2 * turns)
    error = (back.float() - seen.float()).square().mean((1, 2, 3))
    there, again = medkit_places(seen), medkit_places(back)
    had = there.flatten(1).sum(1) >= SPECKS
    kept = ((grown(there) & again).flatten(1).sum(1) >= SPECKS)[had]
    return {
        "starts": len(seen),
        "found": found(back, seen),
        "found_still": found(still, seen),
        "psnr": float((10 * (255**2 / error).log10()).mean()),
        "medkits": float(kept.float().mean()) if len(kept) else 0.0,
        "starts_with_a_medkit": int(had.sum()),
    }


def dreamed(world: World, starts: int, commands: list[str]) -> tuple[Tensor, Tensor]:
    """Last pictures of the starts and after the commands, uint8 (starts, H, W, 3) each."""
    seen, after = [], []
    for first in range(0, starts, world.num_worlds):
        rows = range(min(world.num_worlds, starts - first))
        for row in rows:
            chunk = world.reset(first + row, start=first + row, worlds=[row])
            seen.append(chunk.decoded.cpu()[0, -1])
        if first == 0 and len(rows) < world.num_worlds:
            world.reset(0, worlds=range(len(rows), world.num_worlds))
        for command in commands:
            chunk = world.step(command)
        after += list(chunk.decoded.cpu()[: len(rows), -1])
    return torch.stack(seen), torch.stack(after)


def found(pictures: Tensor, seen: Tensor) -> float:
    """Share of pictures (n, H, W, 3) whose nearest of ``seen`` is their own."""
    distance = torch.cdist(pictures.flatten(1).float(), seen.flatten(1).float())
    return float((distance.argmin(1) == torch.arange(len(seen))).float().mean())


def medkit_places(frames: Tensor) -> Tensor:
    """Bool (n, H, W): white on the floor, where nothing white stands behind it (a pillar does)."""
    low, top = frames.amin(3).float(), frames.amax(3).float()
    white = (low > WHITE) & (top - low < 0.3 * top)
    half = frames.shape[1] // 2
    pillar = grown(white[:, half - 6 : half].any(1)[:, None].expand_as(white), 2)
    white[:, : half + 2] = False
    return white & ~pillar


def grown(places: Tensor, by: int = NEAR) -> Tensor:
    """The same, wider by so many pixels."""
    return F.max_pool2d(places.float()[:, None], 2 * by + 1, 1, by)[:, 0] > 0


if __name__ == "__main__":
    main()
