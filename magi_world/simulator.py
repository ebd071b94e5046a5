"""Any Gymnasium environment with pictures, stepped a chunk at a time under a named command.

Legend: T frames a chunk, H W pixels, E events.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

Action = Any

# Modules as configurations named them before they moved here.
MOVED = {
    "magi_world.training.courtyard": "magi_world.training.simulators.courtyard",
    "magi_world.training.courtyard_figures": "magi_world.training.simulators.courtyard_figures",
    "magi_world.training.scenes": "magi_world.simulator",
}


def load_object(path: str) -> Callable[..., Any]:
    """'package.module:name' -> the object of that name.

    Raises:
        ValueError: the path has another form, or there is no such object.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"{path!r} is not of the form 'package.module:name'")
    try:
        return getattr(importlib.import_module(MOVED.get(module, module)), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{path!r} cannot be loaded: {error}") from error


def open_env(name: str, options: Mapping[str, Any]) -> Any:
    """The environment of a name: an id for ``gymnasium.make``, or "module:function()"."""
    if name.endswith("()"):
        return load_object(name[:-2])(**options)
    import gymnasium

    return gymnasium.make(name, **options)


def as_action(space: Any, value: Action) -> Action:
    """A number, list or dict from a config file as a member of ``space``.

    Raises:
        ValueError: the space does not contain it.
    """
    from gymnasium import spaces

    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping) or set(value) != set(space.spaces):
            raise ValueError(f"action {value!r} must have the entries {sorted(space.spaces)}")
        return {name: as_action(sub, value[name]) for name, sub in space.spaces.items()}
    action = int(value) if isinstance(space, spaces.Discrete) else np.asarray(value, space.dtype)
    if not space.contains(action):
        raise ValueError(f"action {value!r} is not in {space}")
    return action


def entry(observation: Any, key: str) -> Any:
    """Entry ``key`` of a dict observation; "." is the observation itself.

    Raises:
        ValueError: it has no such entry.
    """
    if key == ".":
        return observation
    if not isinstance(observation, Mapping) or key not in observation:
        has = (
            sorted(observation) if isinstance(observation, Mapping) else type(observation).__name__
        )
        raise ValueError(f"the observation has no entry {key!r}; it has {has}")
    return observation[key]


def as_picture(frame: Any) -> np.ndarray:
    """uint8 (H, W, 3) of what an environment shows: colour, or grey with or without an axis.

    Raises:
        ValueError: no picture.
    """
    picture = np.asarray(frame)
    if picture.ndim == 2:
        picture = picture[..., None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3, 4) or picture.dtype == object:
        raise ValueError(
            f"the environment shows {type(frame).__name__} of shape {picture.shape}; a picture is "
            "(H, W, 3) or grey (H, W). Does it need render_mode: rgb_array in env_options, or "
            "another frame_key?"
        )
    picture = picture[..., :3].astype(np.uint8)
    return picture if picture.shape[2] == 3 else np.repeat(picture, 3, axis=2)


def shrink(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Area-average an (H, W, 3) uint8 picture to ``size``: thin textures do not alias."""
    if frame.shape[:2] == size:
        return frame
    from PIL import Image

    image = Image.fromarray(frame)
    height, width = frame.shape[:2]
    if height % size[0] == 0 and width % size[1] == 0:
        return np.asarray(image.reduce((width // size[1], height // size[0])))
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BOX))


@dataclass(frozen=True)
class SceneConfig:
    """Commands that change the scene.

    wrapper: 'module:Class', see `Scene`. options: command -> what the class needs to know of it.
    start: command -> share of the episodes that begin as if it had just been carried out.
    """

    options: Mapping[str, Any]
    start: Mapping[str, float]
    wrapper: str = "magi_world.simulator:Tint"

    def __post_init__(self) -> None:
        if not self.options:
            raise ValueError("SceneConfig.options is empty; give at least one command")
        if not self.start or set(self.start) - set(self.options):
            raise ValueError(
                f"SceneConfig.start names {sorted(self.start)}; it must name at least one of the "
                f"commands in options, {sorted(self.options)}, and no other"
            )
        if min(self.start.values()) < 0 or sum(self.start.values()) <= 0:
            raise ValueError(f"SceneConfig.start is {dict(self.start)}; shares are not negative")


class Scene(Protocol):
    """What may lie over a simulator's picture."""

    def start(self, command: str) -> None:
        """An episode begins, as if ``command`` had been carried out."""

    def change(self, command: str) -> None:
        """``command`` is held during the chunk that begins now."""

    def picture(self, frame: np.ndarray, progress: float) -> np.ndarray:
        """The frame (H, W, 3) uint8 as it is recorded; ``progress`` of the chunk, in (0, 1]."""


@dataclass
class Tint:
    """Multiplies red, green and blue; a change fades in over its chunk and then stays.

    options: command -> the three factors in [0, 1].
    """

    options: Mapping[str, Any]
    before: np.ndarray = field(default_factory=lambda: np.ones(3))
    after: np.ndarray = field(default_factory=lambda: np.ones(3))

    def __post_init__(self) -> None:
        for command, factors in self.options.items():
            values = np.asarray(factors, np.float64)
            if values.shape != (3,) or values.min() < 0 or values.max() > 1:
                raise ValueError(
                    f"scenes.options of {command!r} is {factors!r}; Tint needs three factors "
                    "between 0 and 1, of red, green and blue"
                )

    def start(self, command: str) -> None:
        self.before = self.after = np.asarray(self.options[command], np.float64)

    def change(self, command: str) -> None:
        self.before, self.after = self.after, np.asarray(self.options[command], np.float64)

    def picture(self, frame: np.ndarray, progress: float) -> np.ndarray:
        factors = self.before + (self.after - self.before) * progress
        if progress >= 1:
            self.before = self.after
        if (factors == 1).all():
            return frame
        return (frame * factors).round().astype(np.uint8)


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
        (`magi_world.training.datasets`).
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
        and not action["controller"].endswith(":Once")
    )


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
        return as_action(self.space, self.controller.action())
