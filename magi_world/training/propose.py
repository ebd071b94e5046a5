"""Looking at an environment: its pictures, its actions in words, its episodes; what suits them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from magi_world.simulator import RecordConfig, as_picture, open_env
from magi_world.training.collect import play
from magi_world.training.phrases import mirrored, plain, unique

MOST_COMBINED = 12  # commands for a space of many axes
UNIT = 16  # pixels: both sides of a frame are divisible by it

# What Gymnasium's own environments do not tell of themselves: names of discrete actions, and for
# boxes the names of each axis's low and high end ("" has no command of its own).
KNOWN_ACTIONS = {
    "CartPole": ("push left", "push right"),
    "MountainCar": ("push left", "do nothing", "push right"),
    "Acrobot": ("swing left", "do nothing", "swing right"),
    "LunarLander": ("do nothing", "fire left", "fire main", "fire right"),
    "FrozenLake": ("go left", "go down", "go right", "go up"),
    "CliffWalking": ("go up", "go right", "go down", "go left"),
    "Taxi": ("go down", "go up", "go right", "go left", "pick up", "drop off"),
    "CarRacing": ("do nothing", "steer right", "steer left", "gas", "brake"),
}
KNOWN_AXES = {
    "CarRacing": (("steer left", "steer right"), ("", "gas"), ("", "brake")),
    "Pendulum": (("turn right", "turn left"),),
    "MountainCarContinuous": (("push left", "push right"),),
    "LunarLanderContinuous": (("", "fire main"), ("fire left", "fire right")),
    "BipedalWalker": tuple(
        (f"{j} back", f"{j} forward") for j in ("hip 1", "knee 1", "hip 2", "knee 2")
    ),
}
GRID_WORDS = {"left": "turn left", "right": "turn right", "done": "do nothing"}  # MiniGrid


@dataclass(frozen=True)
class Look:
    """What was found out about an environment by playing it for a while.

    env_options: how it must be made. picture: (H, W) of what it shows; frame_size: what suits a
    small world. frames_per_chunk: steps that a command is held. lengths: of the episodes seen, in
    chunks, the last of them possibly cut short. step_seconds: of one step on this machine.
    asymmetry: of its mean picture, 0 is its own mirror image. spread: of rewards over chunks.
    """

    env: str
    env_options: Mapping[str, Any]
    frame_key: str
    picture: tuple[int, int]
    frame_size: tuple[int, int]
    actions: Mapping[str, Any]
    frames_per_chunk: int
    fps: int
    lengths: tuple[int, ...]
    step_seconds: float
    asymmetry: float
    mirrors: bool
    rewards: tuple[float, float]
    still: float = 0.0
    notes: tuple[str, ...] = field(default=())


def look(env_id: str, module: str | None = None, seconds: float = 20.0, seed: int = 0) -> Look:
    """Make the environment, play it at random for at most ``seconds``, and say what it is like.

    Args:
        env_id: for ``gymnasium.make``, or "module:function()".
        module: imported first, for environments that register themselves.

    Raises:
        ValueError: no such environment, or it shows no pictures.
    """
    if module is not None:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"--module {module} cannot be imported: {error}") from error
        if ":" not in env_id:
            env_id = f"{module}:{env_id}"
    env, options, key, picture = open_environment(env_id)
    notes: list[str] = []
    try:
        actions, once = actions_of(env)
        fps = frames_a_second(env)
    finally:
        env.close()
    frames = 4 if once else 8
    if once:
        notes.append("a step of this game is a whole move, so a command moves once in a chunk")
        actions = {name: _once(value, once[0], frames) for name, value in actions.items()}
    size = frame_size(picture)
    while True:
        config = RecordConfig(
            env_id,
            actions,
            env_options=options,
            frame_key=key,
            frame_size=size,
            frames_per_chunk=frames,
            chunks=2,
            chunks_per_shard=1,
            held_out_shards=1,
        )
        played = _play(config, seconds, seed)
        # Clips need a few chunks of one episode.
        if frames > 2 and float(np.median(played["lengths"])) < 3 and max(played["lengths"]) < 200:
            shorter = frames // 2
            if once or shorter < 2:
                break
            frames = shorter
            notes.append(f"episodes are short, so a chunk has only {frames} frames")
            continue
        break
    return Look(
        env=env_id,
        env_options=options,
        frame_key=key,
        picture=picture,
        frame_size=size,
        actions=actions,
        frames_per_chunk=frames,
        fps=fps,
        mirrors=mirrored(list(actions)) and played["asymmetry"] < 0.15,
        notes=tuple(notes),
        **played,
    )


def open_environment(env_id: str) -> tuple[Any, dict[str, Any], str, tuple[int, int]]:
    """The environment, the options it was made with, where its picture is, and the picture's size.

    Raises:
        ValueError: it cannot be made, or it shows no picture.
    """
    tried: list[str] = []
    for options in ({"render_mode": "rgb_array"}, {}):
        try:
            env = open_env(env_id, options)
        except (ImportError, ModuleNotFoundError) as error:
            raise ValueError(f"{env_id} needs a package that is missing: {error}") from error
        except Exception as error:
            tried.append(str(error) or type(error).__name__)
            continue
        try:
            observation, _ = env.reset(seed=0)
            key = picture_key(observation)
            shown = observation if key == "." else observation[key] if key else env.render()
            return env, dict(options), key, as_picture(shown).shape[:2]
        except Exception as error:
            env.close()
            tried.append(str(error) or type(error).__name__)
    raise ValueError(f"{env_id} cannot be recorded: {'; '.join(dict.fromkeys(tried))}")


def picture_key(observation: Any) -> str:
    """Where a picture is in an observation: "." itself, a key, or "" for nowhere."""

    def is_picture(value: Any) -> bool:
        array: np.ndarray = (
            np.asarray(value) if not isinstance(value, Mapping | str | tuple) else np.zeros(0)
        )
        return (
            array.dtype == np.uint8
            and array.ndim == 3
            and array.shape[2] in (1, 3)
            # MiniGrid's 7x7x3 of object numbers is no picture.
            and min(array.shape[:2]) >= 32
        )

    if is_picture(observation):
        return "."
    if isinstance(observation, Mapping):
        found = [str(k) for k, v in observation.items() if is_picture(v)]
        return max(found, key=lambda k: np.asarray(observation[k]).size, default="")
    return ""


def frame_size(picture: tuple[int, int], most: int = 64 * 96) -> tuple[int, int]:
    """A size for a small world: sides of 32 to 128 pixels, the picture's shape nearly kept."""
    height, width = picture
    sides = list(range(32, 129, UNIT))
    area = min(most, max(32 * 32, height * width))
    fitting = [(h, w) for h in sides for w in sides if h * w <= area] or [(32, 32)]

    def cost(size: tuple[int, int]) -> float:
        h, w = size
        bent = abs(np.log((h / w) / (height / width)))
        # A little bending is cheaper than a much smaller picture; whole factors are sharpest.
        blurred = 0.0 if height % h == 0 and width % w == 0 else 0.05
        return float(3 * bent + 0.5 * abs(np.log(h * w / min(area, 64 * 64))) + blurred)

    return min(fitting, key=cost)


def frames_a_second(env: Any) -> int:
    """As the environment's metadata says; 15 where it does not."""
    for name in ("render_fps", "video.frames_per_second"):
        value = (getattr(env, "metadata", None) or {}).get(name)
        if value:
            return max(1, min(60, round(float(value))))
    return 15


def actions_of(env: Any) -> tuple[dict[str, Any], tuple[Any, ...]]:
    """command -> action in a form for YAML; and, where a step is a whole move, (the action that
    does nothing,).

    Raises:
        ValueError: a space that has no commands.
    """
    named = _names(env)
    space = env.action_space
    kind = type(space).__name__
    if kind == "Discrete":
        first = int(space.start)
        names = named or [f"action {first + i}" for i in range(int(space.n))]
        table = {n: first + i for i, n in enumerate(unique(names))}
        waiting = ("do nothing", "wait", "stay")
        rest = tuple(v for n, v in table.items() if n in waiting)
        return table, rest[:1] if _is_grid(env) and rest else ()
    if kind == "Dict":
        return _combined(
            {k: _axes(k, s, ()) for k, s in space.spaces.items()},
            {k: _rest(s) for k, s in space.spaces.items()},
        ), ()
    axes = _axes("", space, _known(env, KNOWN_AXES))
    table = {"do nothing": _listed(_rest(space)), **{n: _listed(v) for n, v in axes.items()}}
    return dict(list(table.items())[: MOST_COMBINED + 1]), ()


def _names(env: Any) -> list[str]:
    """Names of discrete actions, as the environment or its makers tell them; [] for none."""
    inner, count = env.unwrapped, int(getattr(env.action_space, "n", 0))
    for name in ("get_action_meanings", "action_names", "action_meanings"):
        told = getattr(inner, name, None)
        told = told() if callable(told) else told
        if told is not None and len(told) == count:
            return [plain(str(t)) for t in told]
    numbered = getattr(inner, "actions", None)
    members = getattr(numbered, "__members__", None)
    if members and len(members) == count:
        words = [plain(m) for m in members]
        grid = _is_grid(env)
        return [GRID_WORDS.get(m, w) if grid else w for m, w in zip(members, words, strict=True)]
    known = _known(env, KNOWN_ACTIONS)
    return list(known) if len(known) == count else []


def _known(env: Any, table: Mapping[str, Any]) -> Any:
    name = env.spec.id if getattr(env, "spec", None) else ""
    stem = name.rpartition("/")[2].split("-v")[0].split("-")[0]
    return table.get(stem, ())


def _is_grid(env: Any) -> bool:
    return type(env.unwrapped).__module__.startswith("minigrid")


def _rest(space: Any) -> Any:
    """The action that does as little as the space allows."""
    kind = type(space).__name__
    if kind == "Box":
        return np.clip(np.zeros(space.shape, space.dtype), space.low, space.high)
    if kind == "Dict":
        return {k: _rest(s) for k, s in space.spaces.items()}
    if kind == "Discrete":
        return int(space.start)
    if kind in ("MultiDiscrete", "MultiBinary"):
        return np.zeros(space.shape, space.dtype)
    raise ValueError(f"actions of {space} have no commands; write record.actions yourself")


def _axes(name: str, space: Any, known: Any) -> dict[str, Any]:
    """Commands that move one axis of a space to its ends, all others at rest."""
    kind, rest = type(space).__name__, _rest(space)
    if kind == "Discrete":
        return {f"{name} {v}".strip(): v for v in range(rest + 1, rest + int(space.n))}
    out: dict[str, Any] = {}
    for i, index in enumerate(np.ndindex(space.shape)):
        label = f"{name} {i}" if name else f"axis {i}"
        if kind == "Box":
            low, high = (float(np.clip(x[index], -1e3, 1e3)) for x in (space.low, space.high))
            ends = known[i] if i < len(known) else (f"{label} low", f"{label} high")
            moves = [(n, v) for n, v in zip(ends, (low, high), strict=True) if n]
            if not (i < len(known)):
                moves = [(n, v) for n, v in moves if v != float(rest[index])]
        elif kind == "MultiBinary":
            moves = [(f"press {label.removeprefix('axis ')}", 1)]
        else:
            moves = [(f"{label} to {v}", v) for v in range(1, int(space.nvec[index]))]
        for said, value in moves:
            action = rest.copy()
            action[index] = value
            out[said] = action
    return out


def _combined(parts: Mapping[str, Mapping[str, Any]], rest: Mapping[str, Any]) -> dict[str, Any]:
    """Commands of a dict of spaces: each moves one entry, all others at rest."""
    out = {"do nothing": {k: _listed(v) for k, v in rest.items()}}
    for name, moves in parts.items():
        for said, value in moves.items():
            whole = {k: _listed(v) for k, v in rest.items()}
            out[said] = {**whole, name: _listed(value)}
    return dict(list(out.items())[: MOST_COMBINED + 1])


def _listed(value: Any) -> Any:
    """An action as YAML writes it."""
    return np.asarray(value).tolist() if isinstance(value, np.ndarray) else value


def _once(action: Any, rest: Any, frames: int) -> Any:
    if action == rest:
        return action
    options = {"action": action, "then": rest, "chunk": frames}
    return {"controller": "magi_world.training.policies:Once", "options": options}


def _play(config: RecordConfig, seconds: float, seed: int) -> dict[str, Any]:
    """Sticky random play: lengths of episodes, time of a step, symmetry, rewards, stillness."""
    played = play(config, seconds, most=400, seed=seed)
    chunks = [chunk for _, chunk in played.rows]
    frames = np.stack([chunk.frames for chunk in chunks]).astype(np.float32)
    mean = frames[:, -1].mean(0)
    contrast = float(np.std(mean)) or 1.0
    rewards = [chunk.reward for chunk in chunks]
    return {
        "lengths": tuple(played.lengths),
        "step_seconds": played.seconds / config.frames_per_chunk,
        "asymmetry": float(np.abs(mean - mean[:, ::-1]).mean()) / contrast,
        "rewards": (float(np.mean(rewards)), float(np.std(rewards))),
        "still": float(np.mean(~np.diff(frames, axis=1).any(axis=(1, 2, 3, 4)))),
    }


def propose_actions(record: Mapping[str, Any]) -> dict[str, Any]:
    """record.actions for a configuration that has none.

    Raises:
        ValueError: the environment cannot be made, or its actions have no commands.
    """
    env: Any = None
    options = dict(record.get("env_options") or {})
    makers: list[Callable[[], Any]] = [
        lambda: open_env(str(record["env"]), options),
        lambda: open_environment(str(record["env"]))[0],
    ]
    for make in makers:
        try:
            env = make()
            break
        except Exception as error:
            failed = error
    if env is None:
        raise ValueError(str(failed))
    try:
        actions, once = actions_of(env)
    finally:
        env.close()
    frames = int(record.get("frames_per_chunk") or 8)
    return {n: _once(a, once[0], frames) for n, a in actions.items()} if once else actions
