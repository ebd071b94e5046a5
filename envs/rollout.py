"""What both environments share: B worlds, their episodes, rewards and ends.

Shapes: B worlds, T video frames, H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from torch import Tensor

from magi_world.envs.config import EnvConfig, WorldFactory
from magi_world.envs.reset import (
    EpisodeStart,
    begin_episodes,
    check_shown,
    check_snapshot,
    scenes_per_world,
)
from magi_world.envs.rewards import Moment, Prediction, RewardLike, Score, make_reward, reward_terms
from magi_world.envs.spaces import commands_of
from magi_world.envs.state import EnvSnapshot, joined, rows_of
from magi_world.language import Reading, understood
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot


@dataclass
class Stats:
    """Wall-clock figures of an environment since it was made. Kept out of `info`, which must be the
    same for the same seed.

    steps, resets: calls.    chunks, frames: what the steps gave, over all worlds.
    last_step_seconds, last_reset_seconds: the newest call.
    """

    steps: int = 0
    chunks: int = 0
    frames: int = 0
    resets: int = 0
    step_seconds: float = 0.0
    reset_seconds: float = 0.0
    last_step_seconds: float = 0.0
    last_reset_seconds: float = 0.0

    @property
    def frames_per_second(self) -> float:
        """Frames that the steps gave a second of stepping; 0 before the first."""
        return self.frames / self.step_seconds if self.step_seconds else 0.0

    @contextmanager
    def timed(self, what: Literal["step", "reset"]) -> Iterator[None]:
        """Count a call and its seconds."""
        begin = perf_counter()
        yield
        seconds = perf_counter() - begin
        if what == "step":
            self.steps, self.step_seconds = self.steps + 1, self.step_seconds + seconds
            self.last_step_seconds = seconds
        else:
            self.resets, self.reset_seconds = self.resets + 1, self.reset_seconds + seconds
            self.last_reset_seconds = seconds


class Rollout:
    """B worlds, each in an episode of its own. Knows nothing of Gymnasium's two interfaces.

    chunk: the one on show, all B rows; None before the first reset.
    first, ended: as in `EnvSnapshot`.    jumps: how often the past was changed by `restore`.
    readings: per world, what its last action was read as; None before the first.
    began: per world, what its episode began with: (start, prompt), or None after a restore.
    """

    def __init__(
        self, factory: WorldFactory, num_worlds: int, config: EnvConfig, reward: RewardLike
    ) -> None:
        scenes_per_world(config.prompt, num_worlds)
        self.factory, self.config = factory, config
        self.world = factory.make(num_worlds)
        length = self.world.spec.frames_per_chunk
        if config.observation == "image" and config.frames > length:
            raise ValueError(
                f"frames is {config.frames}; a chunk of this world has {length}. The wrapper "
                "ChunkToImage reaches further back"
            )
        self.reward = make_reward(reward, self.world)
        self.stats = Stats()
        self.chunk: Chunk | None = None
        self.first = [0] * num_worlds
        self.ended = np.zeros(num_worlds, bool)
        self.began: list[tuple[EpisodeStart, str | None] | None] = [None] * num_worlds
        self.readings: list[Reading | None] = [None] * num_worlds
        self.jumps = 0

    @property
    def num_worlds(self) -> int:
        return self.world.num_worlds

    @property
    def space(self) -> Box:
        """What one world's observation can be."""
        size, frames = self.world.spec.frame_size, self.world.spec.frames_per_chunk
        if self.config.observation == "latent":
            # Latents have no bounds of their own; infinite ones are what Gymnasium warns of.
            most = np.finfo(np.float32).max
            return Box(-most, most, self.world.latent_shape, np.float32)
        shape = {
            "chunk": (frames, *size, 3),
            "frame": (*size, 3),
            "image": (*size, 3 * self.config.frames),
        }[self.config.observation]
        return Box(0, 255, shape, np.uint8)

    def begin(
        self,
        rows: Sequence[int],
        seeds: Sequence[int],
        prompts: Sequence[str | None],
        starts: Sequence[EpisodeStart],
    ) -> list[dict[str, Any]]:
        """Start episodes in some worlds; the others are not touched. The info of each of the rows.

        Raises:
            gymnasium.error.ResetNeeded: the first one, and not of all worlds.
        """
        self._check_first(rows)
        with self.stats.timed("reset"):
            part = begin_episodes(self.world, rows, seeds, prompts, starts)
        for row, start, prompt in zip(rows, starts, prompts, strict=True):
            self.began[row] = (start, prompt)
        return self._shown_anew(rows, part)

    def advance(
        self, commands: Sequence[str | None]
    ) -> tuple[Score, np.ndarray, list[dict[str, Any]]]:
        """One chunk of every world: its score, (B,) whether it was the last one, and the infos."""
        with self.stats.timed("step"):
            self.readings = self._read(commands)
            given: Any = [None if self.config.strict else text for text in commands]
            chunk = self.world.step_latents(given, self.config.steer)
            if self.config.observation != "latent" or self.reward.needs_pixels:
                chunk = self.world.decode(chunk)
            self.chunk = chunk
            predicted = self._predicted(chunk)
            infos = self._infos(chunk, range(self.num_worlds), predicted)
            score = self.reward.score(Moment(chunk, infos, self.world.seeds, predicted))
        self.stats.chunks += self.num_worlds
        self.stats.frames += self.num_worlds * self.world.spec.frames_per_chunk
        for row, info in enumerate(infos):
            if score.parts:
                info["rewards"] = {name: float(v[row]) for name, v in score.parts.items()}
        most = self.config.max_chunks
        age = np.array(chunk.index) - self.first
        truncated = np.zeros(self.num_worlds, bool) if most is None else age >= most
        self.ended = score.ended | truncated
        return score, truncated, self._told(infos)

    def observations(self) -> Tensor:
        """(B, ...) of the chunk on show, as a new tensor on the world's device."""
        if self.config.observation == "latent":
            return self._chunk.latents.float().clone()
        pixels = self.shown().decoded
        if self.config.observation == "frame":
            return pixels[:, -1].clone()
        if self.config.observation == "image":
            newest = pixels[:, -self.config.frames :]
            return newest.movedim(1, 3).flatten(3)  # a copy: the axes cannot be joined in place
        return pixels.clone()

    def shown(self) -> Chunk:
        """The chunk on show; decoded now where nobody needed its pixels before.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._chunk.pixels is None:
            self.chunk = self.world.decode(self._chunk)
        return self._chunk

    def frames(self) -> np.ndarray:
        """(B, T, H, W, 3) uint8 on show, in host memory, as a new array."""
        return self.shown().decoded.cpu().numpy().copy()

    def snapshot(self, rngs: Sequence[dict[str, Any]]) -> EnvSnapshot:
        """The state; ``rngs`` are the caller's."""
        chunk, ended = self._chunk, tuple(bool(e) for e in self.ended)
        return EnvSnapshot(self.world.snapshot(), chunk, tuple(self.first), ended, tuple(rngs))

    def restore(
        self, snapshot: EnvSnapshot | Snapshot, rows: Sequence[int], fresh: bool = False
    ) -> list[dict[str, Any]]:
        """Continue from a snapshot in some worlds: each from its own row, or all from the only one.

        Args:
            fresh: an episode begins there; that of an `EnvSnapshot` goes on otherwise.

        Returns:
            The info of each of the rows.

        Raises:
            ValueError: a snapshot of another world, or one without frames. Nothing changed then.
        """
        check_snapshot(snapshot)
        self._check_first(rows)
        state = snapshot.world if isinstance(snapshot, EnvSnapshot) else snapshot
        alone = state.num_worlds == 1
        if not alone and state.num_worlds != self.num_worlds:
            raise ValueError(
                f"snapshot is of {state.num_worlds} worlds; it must be of 1 or {self.num_worlds}"
            )
        sources = [0 if alone else row for row in rows]
        if isinstance(snapshot, Snapshot):
            check_shown(snapshot, sources)
        whole = state.num_worlds == self.num_worlds == len(rows)
        self.world.restore(state, None if whole else rows, 0 if alone and not whole else None)
        part = snapshot.chunk if isinstance(snapshot, EnvSnapshot) else self._newest(state)
        part = self._placed(rows_of(part, sources))
        infos = self._shown_anew(rows, part)
        for target, source in zip(rows, sources, strict=True):
            self.began[target] = None
            if isinstance(snapshot, EnvSnapshot) and not fresh:
                self.first[target] = snapshot.first[source]
                self.ended[target] = snapshot.ended[source]
        self.jumps += 1
        return infos

    def forked(self, n: int) -> Rollout:
        """A rollout of n * B worlds; rows i*n .. i*n + n - 1 continue world i."""
        twin: Rollout = object.__new__(Rollout)
        twin.__dict__.update(self.__dict__)
        if self.config.render_mode == "human":
            twin.config = replace(self.config, render_mode=None)
        twin.world, twin.stats = self.world.fork_batch(n), Stats()
        rows = [row for row in range(self.num_worlds) for _ in range(n)]
        twin.chunk = rows_of(self._chunk, rows)
        twin.first = [self.first[row] for row in rows]
        twin.ended = self.ended[rows]
        twin.began = [self.began[row] for row in rows]
        twin.readings = [self.readings[row] for row in rows]
        return twin

    def _read(self, commands: Sequence[str | None]) -> list[Reading | None]:
        """Say the commands to the worlds; or, where they are taken as they are, only read them."""
        world = self.world
        if self.config.strict:
            said = iter(world.say(list(commands)))
            return [None if text is None else next(said) for text in commands]
        return [
            None if text is None else world.interpreter.read(text, queue)
            for text, queue in zip(commands, world.queues, strict=True)
        ]

    def _check_first(self, rows: Sequence[int]) -> None:
        if self.chunk is None and len(rows) < self.num_worlds:
            raise ResetNeeded("the first reset must be of all worlds; leave reset_mask out")

    def _shown_anew(self, rows: Sequence[int], part: Chunk) -> list[dict[str, Any]]:
        """Show the chunk with which episodes begin in some worlds; their infos."""
        if list(rows) == list(range(self.num_worlds)):
            self.chunk = part
        else:
            order = list(range(self.num_worlds))
            for place, row in enumerate(rows):
                order[row] = self.num_worlds + place
            self.chunk = joined([self._chunk, part], order)
        self.readings = [None if row in rows else r for row, r in enumerate(self.readings)]
        for row, index in zip(rows, part.index, strict=True):
            self.first[row], self.ended[row] = index, False
        return self._told(self._infos(part, rows, self._predicted(part)))

    @property
    def _chunk(self) -> Chunk:
        if self.chunk is None:
            raise ResetNeeded("nothing is on show yet; call reset() first")
        return self.chunk

    def _infos(
        self, chunk: Chunk, rows: Sequence[int], predicted: Prediction | None
    ) -> list[dict[str, Any]]:
        """What is said about each row of a chunk; the same keys after a reset and a step."""
        infos: list[dict[str, Any]] = []
        for place, row in enumerate(rows):
            info: dict[str, Any] = {
                "chunk": chunk.index[place],
                "prompt": chunk.prompts[place],
                "lands": chunk.lands[place],
                "skip": chunk.skip[place],
                "seed": int(self.world.seeds[row]),
                "understood": understood(self.readings[row], self.world.queues[row]),
            }
            if predicted is not None:
                info["events"] = predicted.of(place)
            if terms := reward_terms(self.reward):
                info["rewards"] = dict.fromkeys(terms, 0.0)
            infos.append(info)
        return infos

    def _told(self, infos: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What users get: numbers throughout where they act by numbers.

        Texts in an info end as arrays of objects, which TorchRL and array wrappers cannot take.
        """
        if self.config.actions == "text":
            return infos
        numbers = {name: i for i, name in enumerate(commands_of(self.world.spec))}
        return [
            {"command": numbers.get(info["prompt"], -1)}
            | {k: v for k, v in info.items() if not isinstance(v, str) and k != "understood"}
            for info in infos
        ]

    @torch.inference_mode()
    def _predicted(self, chunk: Chunk) -> Prediction | None:
        heads = self.world.parts.heads
        return None if heads is None else Prediction.read(heads(chunk.seen))

    def _newest(self, state: Snapshot) -> Chunk:
        """The decoded chunk that a bare snapshot was taken after."""
        latents = state.state.newest_clean.to(self.world.device)
        return self.world.decode(Chunk.of(state.prompts, latents))

    def _placed(self, chunk: Chunk) -> Chunk:
        device = self.world.device
        pixels = None if chunk.pixels is None else chunk.decoded.to(device)
        before = None if chunk.before is None else chunk.before.to(device)
        latents = chunk.latents.to(device)
        return replace(chunk, latents=latents, before=before, pixels=pixels, ready=None)

    def __getstate__(self) -> dict[str, Any]:
        started = self.chunk is not None
        snapshot = self.world.snapshot() if started else None
        return {**self.__dict__, "world": (self.num_worlds, snapshot)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        num_worlds, snapshot = state["world"]
        self.__dict__.update(state)
        self.world = self.factory.make(num_worlds)
        if snapshot is not None:
            self.world.restore(snapshot)
