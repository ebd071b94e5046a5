"""What both environments share: B worlds, their episodes, rewards and ends.

Shapes: B worlds, T video frames, H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from torch import Tensor

from magi_world.envs.chunks import repeated, rows_of, with_rows
from magi_world.envs.config import EnvConfig
from magi_world.envs.rewards import RewardLike, make_reward, reward_terms
from magi_world.envs.score import Moment, Prediction, Score
from magi_world.envs.source import Source
from magi_world.envs.spaces import commands_of
from magi_world.envs.starts import Begin, begin
from magi_world.envs.state import EnvSnapshot
from magi_world.envs.stats import Stats
from magi_world.language import Reading, understood
from magi_world.world.chunk import Chunk
from magi_world.world.snapshot import Snapshot


class Rollout:
    """B worlds, each in an episode of its own. Knows nothing of Gymnasium's two interfaces.

    chunk: the one on show, all B rows; None before the first reset.
    first, ended: as in `EnvSnapshot`.    jumps: how often the past was changed by `restore`.
    readings: per world, what its last action was read as; None before the first.
    begins: per world, what its episode began with: (Begin, prompt), or None after a restore.
    """

    def __init__(
        self, source: Source, num_worlds: int, config: EnvConfig, reward: RewardLike
    ) -> None:
        self.source, self.config = source, config
        self.world = source.make(num_worlds)
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
        self.begins: list[tuple[Begin, str | None] | None] = [None] * num_worlds
        self.readings: list[Reading | None] = [None] * num_worlds
        self.jumps = 0

    @property
    def num_worlds(self) -> int:
        """B."""
        return self.world.num_worlds

    @property
    def space(self) -> Box:
        """What one world's observation can be."""
        size, frames = self.world.spec.frame_size, self.world.spec.frames_per_chunk
        if self.config.observation == "chunk":
            return Box(0, 255, (frames, *size, 3), np.uint8)
        if self.config.observation == "frame":
            return Box(0, 255, (*size, 3), np.uint8)
        if self.config.observation == "image":
            return Box(0, 255, (*size, 3 * self.config.frames), np.uint8)
        # Latents have no bounds of their own; infinite ones are what Gymnasium warns of.
        most = np.finfo(np.float32).max
        return Box(-most, most, self.world.latent_shape, np.float32)

    def begin(
        self,
        rows: Sequence[int],
        seeds: Sequence[int],
        prompts: Sequence[str | None],
        begins: Sequence[Begin],
    ) -> list[dict[str, Any]]:
        """Start episodes in some worlds; the others are not touched.

        Returns:
            The info of each of the rows.
        """
        if self.chunk is None and len(rows) < self.num_worlds:
            raise ResetNeeded("the first reset must be of all worlds; leave reset_mask out")
        with self.stats.reset():
            part = begin(self.world, rows, seeds, prompts, begins)
        for row, one, prompt in zip(rows, begins, prompts, strict=True):
            self.begins[row] = (one, prompt)
        self._show(rows, part)
        return self._told(self._infos(part, rows, self._predicted(part)))

    def advance(
        self, commands: Sequence[str | None]
    ) -> tuple[Score, np.ndarray, list[dict[str, Any]]]:
        """One chunk of every world.

        Returns:
            The score, which worlds reached their last chunk (B,), and the infos.
        """
        with self.stats.step(self.num_worlds, self.world.spec.frames_per_chunk):
            self.readings = self._read(commands)
            given: Any = [None if self.config.strict else text for text in commands]
            chunk = self.world.step_latents(given, self.config.steer)
            if self.config.observation != "latent" or self.reward.needs_pixels:
                chunk = self.world.decode(chunk)
            self.chunk = chunk
            predicted = self._predicted(chunk)
            infos = self._infos(chunk, range(self.num_worlds), predicted)
            score = self.reward.score(Moment(chunk, infos, self.world.seeds, predicted))
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
        if self.config.observation == "frame":
            return self.pixels()[:, -1].clone()
        if self.config.observation == "image":
            newest = self.pixels()[:, -self.config.frames :]
            return newest.movedim(1, 3).flatten(3)  # a copy: the axes cannot be joined in place
        return self.pixels().clone()

    def shown(self) -> Chunk:
        """The chunk on show; decoded now where nobody needed its pixels before."""
        if self._chunk.pixels is None:
            self.chunk = self.world.decode(self._chunk)
        return self._chunk

    def pixels(self) -> Tensor:
        """(B, T, H, W, 3) uint8 on show."""
        return self.shown().decoded

    def frames(self) -> np.ndarray:
        """`pixels` in host memory, as a new array."""
        return self.pixels().cpu().numpy().copy()

    def snapshot(self, rngs: Sequence[dict[str, Any]]) -> EnvSnapshot:
        """The state; ``rngs`` are the caller's."""
        chunk, ended = self._chunk, tuple(bool(e) for e in self.ended)
        return EnvSnapshot(self.world.snapshot(), chunk, tuple(self.first), ended, tuple(rngs))

    def restore(
        self,
        snapshot: EnvSnapshot | Snapshot,
        rows: Sequence[int],
        fresh: bool = False,
    ) -> list[dict[str, Any]]:
        """Continue from a snapshot in some worlds: each from its own row, or all from the only one.

        Args:
            fresh: an episode begins there; that of an `EnvSnapshot` goes on otherwise.

        Returns:
            The info of each of the rows.

        Raises:
            ValueError: a snapshot of another world, or one without frames. Nothing changed then.
        """
        if not isinstance(snapshot, EnvSnapshot | Snapshot):
            raise ValueError(
                f"snapshot is a {type(snapshot).__name__}; it must be an EnvSnapshot, a Snapshot, "
                "or the file of one"
            )
        if self.chunk is None and len(rows) < self.num_worlds:
            raise ResetNeeded("the first reset must be of all worlds; leave reset_mask out")
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
        self._show(rows, part)
        for target, source in zip(rows, sources, strict=True):
            self.begins[target] = None
            if isinstance(snapshot, EnvSnapshot) and not fresh:
                self.first[target] = snapshot.first[source]
                self.ended[target] = snapshot.ended[source]
        self.jumps += 1
        return self._told(self._infos(part, rows, self._predicted(part)))

    def forked(self, n: int) -> Rollout:
        """A rollout of n * B worlds; rows i*n .. i*n + n - 1 continue world i."""
        twin: Rollout = object.__new__(Rollout)
        twin.__dict__.update(self.__dict__)
        if self.config.render_mode == "human":
            twin.config = replace(self.config, render_mode=None)
        twin.world, twin.stats = self.world.fork_batch(n), Stats()
        twin.chunk = repeated(self._chunk, n)
        twin.first = [f for f in self.first for _ in range(n)]
        twin.ended = np.repeat(self.ended, n)
        twin.begins = [b for b in self.begins for _ in range(n)]
        twin.readings = [r for r in self.readings for _ in range(n)]
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

    def _show(self, rows: Sequence[int], part: Chunk) -> None:
        everything = list(rows) == list(range(self.num_worlds))
        self.chunk = part if everything else with_rows(self._chunk, rows, part)
        self.readings = [None if row in rows else r for row, r in enumerate(self.readings)]
        for row, index in zip(rows, part.index, strict=True):
            self.first[row], self.ended[row] = index, False

    @property
    def _chunk(self) -> Chunk:
        if self.chunk is None:
            raise ResetNeeded("nothing is on show yet; call reset() first")
        return self.chunk

    def _infos(
        self, chunk: Chunk, rows: Sequence[int], predicted: Prediction | None
    ) -> list[dict[str, Any]]:
        """What is said about each row of a chunk; the same keys after a reset and a step."""
        infos: list[dict[str, Any]] = [
            {"chunk": index, "prompt": prompt, "lands": lands, "skip": skip}
            for index, prompt, lands, skip in zip(
                chunk.index, chunk.prompts, chunk.lands, chunk.skip, strict=True
            )
        ]
        for place, (row, info) in enumerate(zip(rows, infos, strict=True)):
            info["seed"] = int(self.world.seeds[row])
            info["understood"] = understood(self.readings[row], self.world.queues[row])
            if predicted is not None:
                info["events"] = predicted.of(place)
            if terms := reward_terms(self.reward):
                info["rewards"] = dict.fromkeys(terms, 0.0)
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
        if heads is None:
            return None
        said: Mapping[str, Any] = heads(chunk.latents)
        events = {name: _host(value) for name, value in said.get("events", {}).items()}
        return Prediction(_host(said["reward"]), _host(said["end"]), events)

    def _newest(self, state: Snapshot) -> Chunk:
        """The decoded chunk that a bare snapshot was taken after."""
        stories = state.stories
        chunk = Chunk(
            state.state.newest_clean.to(self.world.device),
            index=tuple(s.steps for s in stories),
            prompts=tuple(s.command for s in stories),
            lands=tuple(s.lands for s in stories),
            skip=(0,) * len(stories),
        )
        return self.world.decode(chunk)

    def _placed(self, chunk: Chunk) -> Chunk:
        device = self.world.device
        pixels = None if chunk.pixels is None else chunk.pixels.to(device)
        return Chunk(
            chunk.latents.to(device), chunk.index, chunk.prompts, chunk.lands, chunk.skip, pixels
        )

    def __getstate__(self) -> dict[str, Any]:
        started = self.chunk is not None
        snapshot = self.world.snapshot() if started else None
        return {**self.__dict__, "world": (self.num_worlds, snapshot)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        num_worlds, snapshot = state["world"]
        self.__dict__.update(state)
        self.world = self.source.make(num_worlds)
        if snapshot is not None:
            self.world.restore(snapshot)


def check_shown(snapshot: Snapshot, rows: Sequence[int]) -> None:
    """Raise ValueError unless the last chunk of these worlds can be decoded from the snapshot."""
    for row in rows:
        story = snapshot.stories[row] if row < snapshot.num_worlds else None
        if story is not None and story.steps == 0 and not snapshot.state.lanes[row].clean_pending:
            raise ValueError(
                "snapshot was taken right after a reset and holds no frames of its start; take it "
                "with env.unwrapped.snapshot(), or after a step"
            )


def _host(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.float().cpu().numpy()
    return np.asarray(values, np.float64)
