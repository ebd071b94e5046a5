"""Environments made by others: how they are named, what they show, the actions they take."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Action = Any


def load_object(path: str) -> Callable[..., Any]:
    """'package.module:name' -> the object of that name.

    Raises:
        ValueError: the path has another form, or there is no such object.
    """
    module, _, name = path.partition(":")
    if not module or not name:
        raise ValueError(f"{path!r} is not of the form 'package.module:name'")
    try:
        return getattr(importlib.import_module(module), name)
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
