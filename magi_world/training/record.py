"""Any Gymnasium environment with rgb frames and a table command -> action, as shards of chunks.

A shard is one safetensors file, made from its own seed alone: shards can be recorded by several
processes in any order, a stopped run goes on with the shards that are missing, and a recording
is reproduced from (config, seed). Legend: N chunks of a shard, T frames a chunk, H W pixels.

| tensor  | shape              | what                                                       |
|---------|--------------------|------------------------------------------------------------|
| frames  | N T H W 3, uint8   | the frame after each of the T simulator steps              |
| command | N, int16           | row of the command table held during the chunk             |
| reward  | N, float32         | the simulator's own reward, summed over the chunk          |
| events  | N E, int16         | how often each configured event happened                   |
| end     | N, int8            | 1 the episode ended in this chunk, 2 a limit cut it short  |
| episode | N, int32           | episode number within the shard                            |

An episode that ends inside a chunk has its last frame repeated to the chunk's end.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import save_file
from tqdm import tqdm

from magi_world.training.environment import (
    Action,
    as_action,
    as_picture,
    entry,
    load_object,
    open_env,
    shrink,
)
from magi_world.training.scenes import Scene, SceneConfig
from magi_world.training.workers import Interrupted, run_jobs, stopping


@dataclass(frozen=True)
class EventConfig:
    """One event read from a vector in the observation, e.g. a game variable that rises.

    key, index: where the number is, ``observation[key][index]``; change: 'rise' or 'fall'.
    """

    key: str
    index: int
    change: str = "rise"

    def __post_init__(self) -> None:
        if self.change not in ("rise", "fall"):
            raise ValueError(f"EventConfig.change is {self.change!r}; it must be 'rise' or 'fall'")


@dataclass(frozen=True)
class RecordConfig:
    """What is recorded.

    env: environment id for ``gymnasium.make`` ('module:id' imports the module first), or
        'module:function' ending in ``()`` called with env_options; env_options: its arguments.
    frame_key: entry of a dict observation that is the picture; '' = ``env.render()``; '.' = the
        observation itself.
    actions: command -> action, as numbers, lists or (for Dict spaces) dicts of lists; or, for a
        goal, ``{controller: 'module:Class', options: {...}}`` (see `Controller`).
    scenes: commands that change how the picture looks, and what each does; every one of them has
        an action too, which is held meanwhile.
    mirror: whether a mirrored recording is as true as the real one, and if so which words of the
        commands change sides, such as ``{left: right}``; empty is no.
    policy: 'module:Class' called as Class(env, commands, rng, **policy_options), who plays
        (`magi_world.training.policies`); policy_options: further arguments.
    source: written ``from`` in a file. '' records the environment; 'minari:DATASET' takes the
        episodes of a dataset instead, 'sb3:FILE.zip' lets an agent of Stable-Baselines3 play
        (`magi_world.training.sources`).
    """

    env: str
    actions: Mapping[str, Action]
    policy: str = "magi_world.training.policies:StickyRandom"
    policy_options: Mapping[str, Any] = field(default_factory=dict)
    source: str = field(default="", metadata={"yaml": "from"})
    env_options: Mapping[str, Any] = field(default_factory=dict)
    frame_key: str = ""
    frame_size: tuple[int, int] = (64, 64)
    frames_per_chunk: int = 8
    chunks: int = 50_000
    chunks_per_shard: int = 1_000
    held_out_shards: int = 2
    events: Mapping[str, EventConfig] = field(default_factory=dict)
    scenes: SceneConfig | None = None
    mirror: Mapping[str, str] = field(default_factory=dict)
    max_chunks_per_episode: int = 200
    processes: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("frames_per_chunk", "chunks", "chunks_per_shard", "processes"):
            value = getattr(self, name)
            if value < 1:
                raise ValueError(f"RecordConfig.{name} is {value}; it must be at least 1")
        kind, _, what = self.source.partition(":")
        if self.source and (kind not in ("minari", "sb3") or not what):
            raise ValueError(
                f"RecordConfig.source is {self.source!r}; record.from must be 'minari:DATASET' or "
                "'sb3:FILE.zip'"
            )
        if not self.actions:
            raise ValueError("RecordConfig.actions is empty; give at least one command")
        if self.scenes and (missing := sorted(set(self.scenes.options) - set(self.actions))):
            raise ValueError(
                f"RecordConfig.scenes has the commands {missing}, which RecordConfig.actions "
                "lacks; give each the action that is held while the scene changes"
            )
        if self.shards <= self.held_out_shards:
            raise ValueError(
                f"RecordConfig.chunks is {self.chunks}; that makes {self.shards} shards of "
                f"{self.chunks_per_shard}, and held_out_shards ({self.held_out_shards}) of them "
                "leave nothing to train on"
            )

    @property
    def moves(self) -> list[str]:
        """Commands that hold one action and change nothing else: what they do can be seen in any
        chunk of theirs, whatever the place."""
        changes = self.scenes.options if self.scenes else {}
        return [
            name
            for name, action in self.actions.items()
            if name not in changes and not _is_goal(action)
        ]

    @property
    def shards(self) -> int:
        """Files in the recording."""
        return -(-self.chunks // self.chunks_per_shard)


def _is_goal(action: Action) -> bool:
    """Whether a controller decides, by what it sees, what is done; `Once` does not look."""
    return (
        isinstance(action, Mapping)
        and "controller" in action
        and action["controller"] != "magi_world.training.policies:Once"
    )


class Policy(Protocol):
    """Chooses the command of the next chunk; told when an episode starts."""

    def reset(self) -> None:
        """An episode begins."""

    def command(self) -> str:
        """What is held during the next chunk."""


class Controller(Protocol):
    """Chooses the action of every simulator step while its command, a goal, is held.

    Made once a recording process as ``Class(env, **options)``; it may look inside the simulator.
    """

    def begin(self) -> None:
        """The command is held from now on; it was not held in the chunk before."""

    def action(self) -> Action:
        """The action of the next step, as in a configuration."""


@dataclass(frozen=True, eq=False)
class SimulatedChunk:
    """What happened while one command was held.

    frames: uint8 (T, H, W, 3).    command: row of the command table.
    reward: the simulator's own, summed.    events: int16 (E,), how often each event happened.
    ended, cut: the simulator said in the last step that the episode ended, that it was cut short.
    """

    frames: np.ndarray
    command: int
    reward: float
    events: np.ndarray
    ended: bool
    cut: bool


class ChunkSimulator:
    """An environment that is stepped a chunk at a time: one command, T frames."""

    def __init__(self, config: RecordConfig) -> None:
        self.config = config
        self.env = open_env(config.env, config.env_options)
        self.commands = list(config.actions)
        self.actions = [self._controlled(a) for a in config.actions.values()]
        self.scene: Scene | None = None
        if config.scenes:
            self.scene = load_object(config.scenes.wrapper)(config.scenes.options)
        self.held: int | None = None
        self.watch: Callable[[Any], None] | None = None  # told what every step returns
        self.values = np.zeros(len(config.events))

    def reset(self, seed: int) -> None:
        """Start an episode, which its seed decides."""
        observation, _ = self.env.reset(seed=seed)
        self.values = self._read(observation)
        if self.watch is not None:
            self.watch(observation)
        self.held = None
        if self.scene is not None and self.config.scenes is not None:
            shares = self.config.scenes.start
            total = np.cumsum(list(shares.values()))
            drawn = np.random.default_rng([seed, 1]).random() * total[-1]
            self.scene.start(list(shares)[int(np.searchsorted(total, drawn, side="right"))])

    def chunk(self, command: int) -> SimulatedChunk:
        """Hold a command, given by its row, for a chunk."""
        frames: list[np.ndarray] = []
        counts = np.zeros(len(self.config.events), np.int16)
        reward, ended, cut = 0.0, False, False
        rises = np.array([e.change == "rise" for e in self.config.events.values()])
        held = self.actions[command]
        if isinstance(held, _Controlled) and command != self.held:
            held.controller.begin()
        self.held = command
        if self.scene is not None and self.commands[command] in self.scene_commands:
            self.scene.change(self.commands[command])
        while len(frames) < self.config.frames_per_chunk and not (ended or cut):
            observation, step_reward, ended, cut, _ = self.env.step(
                held.action() if isinstance(held, _Controlled) else held
            )
            if self.watch is not None:
                self.watch(observation)
            reward += float(step_reward)
            over = ended or cut
            if not over or not frames:
                frame = self._picture(observation)
                if self.scene is not None:
                    progress = (len(frames) + 1) / self.config.frames_per_chunk
                    frame = self.scene.picture(frame, progress)
                frames.append(frame)
            values = self._read(observation)
            if not over:
                change = values - self.values
                counts += np.where(rises, change > 0, change < 0).astype(np.int16)
                self.values = values
        frames += frames[-1:] * (self.config.frames_per_chunk - len(frames))
        return SimulatedChunk(np.stack(frames), command, reward, counts, bool(ended), bool(cut))

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    @property
    def scene_commands(self) -> Mapping[str, Any]:
        """Commands that change the scene."""
        return self.config.scenes.options if self.config.scenes else {}

    def _controlled(self, value: Action) -> Action:
        space = self.env.action_space
        if not isinstance(value, Mapping) or "controller" not in value:
            return as_action(space, value)
        if unknown := set(value) - {"controller", "options"}:
            raise ValueError(f"action {value!r} has unknown entries {sorted(unknown)}")
        made = load_object(value["controller"])(self.env, **value.get("options", {}))
        return _Controlled(made, space)

    def _picture(self, observation: Any) -> np.ndarray:
        key = self.config.frame_key
        frame = entry(observation, key) if key else self.env.render()
        return shrink(as_picture(frame), self.config.frame_size)

    def _read(self, observation: Any) -> np.ndarray:
        events = self.config.events.values()
        return np.array([float(entry(observation, e.key)[e.index]) for e in events])


@dataclass(frozen=True, eq=False)
class _Controlled:
    """A controller whose actions are checked and made members of the space."""

    controller: Controller
    space: Any

    def action(self) -> Action:
        """The next one."""
        return as_action(self.space, self.controller.action())


def make_policy(
    config: RecordConfig, simulator: ChunkSimulator, rng: np.random.Generator
) -> Policy:
    """Who plays, made for this simulator; one with a method ``see`` is told every observation.

    Raises:
        ValueError: there is no such class, or it does not take policy_options.
    """
    path, options = config.policy, dict(config.policy_options)
    if config.source.startswith("sb3:"):
        path = "magi_world.training.sources:TrainedAgent"
        options |= {"file": config.source.removeprefix("sb3:"), "actions": config.actions}
    try:
        policy: Policy = load_object(path)(simulator.env, simulator.commands, rng, **options)
    except TypeError as error:
        raise ValueError(f"policy {path!r} cannot be made with {options}: {error}") from error
    simulator.watch = getattr(policy, "see", None)
    return policy


def record_shard(config: RecordConfig, index: int, path: Path) -> int:
    """Record shard ``index`` and put it at ``path`` in one move. Returns its number of chunks."""
    rng = np.random.default_rng([config.seed, index])
    simulator = ChunkSimulator(config)
    policy = make_policy(config, simulator, rng)
    rows: list[dict[str, Any]] = []
    episode = 0
    while len(rows) < config.chunks_per_shard:
        simulator.reset(int(rng.integers(2**31)))
        policy.reset()
        for _ in range(config.max_chunks_per_episode):
            chunk = simulator.chunk(simulator.commands.index(policy.command()))
            rows.append(shard_row(chunk, episode))
            if stopping():
                simulator.close()
                raise Interrupted
            if rows[-1]["end"] or len(rows) == config.chunks_per_shard:
                break
        episode += 1
    simulator.close()
    return write_shard(config, rows, path)


def write_shard(config: RecordConfig, rows: Sequence[Mapping[str, Any]], path: Path) -> int:
    """Put chunks, each as `shard_row` makes it, at ``path`` in one move. Returns their number."""
    tensors = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    temporary = path.with_suffix(".part")
    save_file(tensors, temporary, metadata={"commands": "|".join(config.actions)})
    os.replace(temporary, path)
    return len(rows)


def shard_row(chunk: SimulatedChunk, episode: int) -> dict[str, Any]:
    """A chunk as a row of a shard."""
    return {
        "frames": chunk.frames,
        "command": np.int16(chunk.command),
        "reward": np.float32(chunk.reward),
        "events": chunk.events,
        "end": np.int8(2 if chunk.cut else 1 if chunk.ended else 0),
        "episode": np.int32(episode),
    }


def shard_path(folder: Path, index: int) -> Path:
    """Where shard ``index`` of a recording lies."""
    return folder / f"shard_{index:04d}.safetensors"


def record(config: RecordConfig, folder: str | Path) -> Path:
    """Record what is missing of ``config`` in ``folder``; the last shards are the held-out ones.

    Returns:
        The folder.

    Raises:
        Stopped: SIGINT or SIGTERM; finished shards are kept.
        ValueError: the simulator or the policy is not as the configuration says.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(config.shards) if not shard_path(folder, i).exists()]
    if not missing:
        return folder
    bar = tqdm(
        total=config.chunks,
        initial=config.chunks_per_shard * (config.shards - len(missing)),
        desc="record",
        unit="chunk",
    )
    if config.source.startswith("minari:"):
        from magi_world.training.sources import record_dataset

        with bar:
            record_dataset(config, folder, bar.update)
        return folder
    jobs = [(config, i, shard_path(folder, i)) for i in missing]
    with bar:
        for chunks in run_jobs(record_shard, jobs, config.processes, "record"):
            bar.update(chunks)
    return folder
