"""One world as a Gymnasium environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from magi_world.envs.base import METADATA, RolloutEnv, check_count, metadata
from magi_world.envs.config import Actions, EnvConfig, Observation, RenderMode, WorldFactory
from magi_world.envs.reset import EpisodeStart, StartLike, read_options, read_start, whole_seed
from magi_world.envs.rewards import RewardLike
from magi_world.envs.rollout import Rollout
from magi_world.envs.spaces import CommandSpace, command_at, keys_to_action, teach_torchrl
from magi_world.envs.state import EnvSnapshot
from magi_world.envs.vector import MagiWorldVectorEnv
from magi_world.language import Reading
from magi_world.loading import DEFAULT_WORLD, LoadOptions
from magi_world.world.snapshot import Snapshot
from magi_world.world.world import Steer, World


class MagiWorldEnv(RolloutEnv, gym.Env[np.ndarray, Any]):
    """A video world that obeys text. One step is one chunk of video.

    ## Action
    Text: what the next chunk should show, e.g. ``"turn left"``. `action_space.sample()` draws from
    the commands that the world was trained on (`action_space.commands`); any other printable
    ASCII text of 1 .. 1024 characters is read as a sentence (docs/words.md): "turn lfet", "turn
    left twice, then walk forward". What comes next of it is in ``info["understood"]["queue"]``, and
    "keep going" does it; any other text replaces it. What is not understood changes nothing: the
    command in force goes on. ``strict=False`` gives every text to the world as it is. With
    ``actions="discrete"`` a number 0 .. n - 1 that stands for one of the commands.

    ## Observation
    ``"chunk"``: all frames, uint8 (T, H, W, 3). ``"frame"``: the last one, (H, W, 3). ``"image"``:
    the last k, stacked on channels, (H, W, 3 k).
    ``"latent"``: what the world itself computes with, float32 (C, t, h, l); nothing is decoded
    then unless a reward or `render` asks for it.

    ## Reward and end
    By default what the world's heads predict, 0 and no end where it has none. The horizon
    ``max_chunks`` truncates, a predicted end terminates.

    ## Info
    ``chunk``: index since the world was reset. ``prompt``: the command in force. ``lands``: index
    of the first chunk that it conditions. ``skip``: frames at the front that only repeat the start.
    ``seed``: of the episode. ``events``: what the heads predict. ``rewards``: terms of the reward,
    0 after a reset. ``understood``: of the action, after a reset of the command in force:
    ``{"command": name or None, "confidence": 0 .. 1, "queue": [names still to come]}``. With
    discrete actions there is no text: ``command`` is the number of the one in force (-1: none of
    the world's) in place of ``prompt`` and ``understood``.

    ## Start
    ``reset(seed=s)`` starts the world with seed s; without, a seed is drawn from `np_random`.
    ``reset(options=...)`` takes, for this episode: ``prompt``, and one of ``start``, ``image``,
    ``video`` (a file or array) and ``snapshot`` (an `EnvSnapshot`, a `magi_world.Snapshot`, or a
    file of one).

    ## Versions
    v0: the first.
    """

    metadata: dict[str, Any] = METADATA

    def __init__(
        self,
        world: str | Path | World = DEFAULT_WORLD,
        observation: Observation = "chunk",
        reward: RewardLike = None,
        max_chunks: int | None = None,
        prompt: str | None = None,
        start: StartLike = None,
        seed: int | None = None,
        steer: Steer = "now",
        render_mode: RenderMode | None = None,
        actions: Actions = "text",
        frames: int = 4,
        strict: bool = True,
        load: LoadOptions | Mapping[str, Any] | None = None,
    ) -> None:
        """Args:
            world: a name of `magi_world.list_worlds`, a folder, a released model, or a `World`
                that lends its weights.
            observation: "chunk", "frame", "image" or "latent".
            reward: None, "learned", "none", "text:<goal>", a function `(Chunk, info) -> (reward,
                terminated)`, a `Reward`, a list of these (their sum), or a mapping to weights.
            max_chunks: chunks of an episode; None has no end.
            prompt: the scene; None is the world's own.
            start: None (the seed picks one of the world's own start videos), the number of one,
                "text" (none at all), an image or video file, or uint8 frames.
            seed: what each reset without a seed of its own uses; None draws a new one each time.
            steer: with several chunks in flight, "now" puts them all under a new command, "queue"
                only those that begin then.
            actions: "text", or "discrete" for the numbers of the world's commands.
            strict: read actions as sentences, and obey only what is understood; False gives every
                text to the world as it is.
            frames: k of the observation "image", at most those of a chunk.
            load: device, number of denoising steps and the like, as `magi_world.LoadOptions` or a
                mapping of some of its fields.

        Raises:
            ValueError: an argument that cannot be; the message says what can.
            FileNotFoundError: a file that is not there.
        """
        config = EnvConfig(
            observation, max_chunks, prompt, seed, steer, render_mode, actions, frames, strict
        )
        rollout = Rollout(WorldFactory(world, load), 1, config, reward)
        self._setup(rollout, [read_start(rollout.world, start)])

    def _setup(self, rollout: Rollout, starts: Sequence[EpisodeStart]) -> None:
        self._share(rollout, starts)
        self.observation_space = rollout.space
        self._actions = self._one_action_space()
        self.metadata = metadata(rollout)

    @property
    def np_random(self) -> np.random.Generator:
        """From which the seeds of episodes are drawn that are given none."""
        return self._generators[0]

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._generators.put(0, value)

    _np_random = np_random  # Gymnasium's checker looks behind its own property

    @property
    def np_random_seed(self) -> int:
        """The seed of the generator; -1 where it came from a snapshot."""
        _ = self.np_random
        return self._generators.seeds[0]

    _np_random_seed = np_random_seed

    @property
    def began(self) -> tuple[EpisodeStart, str | None] | None:
        """Start and prompt that the episode began with; None if it began with a snapshot."""
        return self._rollout.began[0]

    @property
    def action_space(self) -> gym.Space[Any]:  # type: ignore[override]
        """Texts, or numbers of the commands."""
        teach_torchrl()  # whenever it may have been loaded since
        return self._actions

    @property
    def reading(self) -> Reading | None:
        """What the last action was read as; None after a reset or a restore."""
        return self._rollout.readings[0]

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode.

        Raises:
            ValueError: an unknown option, or a value that cannot be. The episode goes on then.
        """
        self._check_open()
        given = read_options(self.world, options, 1)
        (info,) = self._reset_rows([0], [whole_seed(seed)], given)
        return self._shown(), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """The next chunk, under what ``action`` says: a text, or a number if they are discrete.

        Raises:
            ValueError: the action is not in the action space. The episode goes on then.
            gymnasium.error.ResetNeeded: before the first reset, and after the end of an episode.
        """
        self._check_started()
        if self._rollout.ended[0]:
            raise ResetNeeded("the episode has ended; call reset() before step()")
        space = self._actions
        if isinstance(space, CommandSpace):
            command = space.check(action)
        else:
            command = command_at(self.commands, action)
        score, truncated, (info,) = self._rollout.advance([command])
        reward, ended = float(score.reward[0]), bool(score.ended[0])
        return self._shown(), reward, ended, bool(truncated[0]), info

    def render(self) -> Any:
        """The last frame (H, W, 3), or all frames of the newest chunk; None in a window."""
        pictures = self._pictures()
        return None if pictures is None else pictures[0]

    def restore(
        self, snapshot: EnvSnapshot | Snapshot | str | Path
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Continue from a snapshot (or its file), as if nothing had happened since.

        Returns:
            The observation and info of the chunk that the snapshot was taken after.

        Raises:
            ValueError: a snapshot of another world. Nothing has changed then.
        """
        (info,) = self._restored(snapshot)
        return self._shown(), info

    def fork(self, n: int) -> list[MagiWorldEnv]:
        """``n`` environments that continue from here, without a window; weights are shared."""
        self._check_open()
        check_count(n)
        return [self._twin() for _ in range(n)]

    def fork_batch(self, n: int, autoreset_mode: str = "SAME_STEP") -> MagiWorldVectorEnv:
        """One vector environment of ``n`` worlds that all continue from here. For planners."""
        self._check_open()
        check_count(n)
        rollout, rngs = self._rollout.forked(n), self._generators.states() * n
        return MagiWorldVectorEnv.of(rollout, self._starts * n, rngs, autoreset_mode)

    def _twin(self) -> MagiWorldEnv:
        twin = object.__new__(type(self))
        twin._setup(self._rollout.forked(1), self._starts)
        twin.spec = self.spec
        twin._generators.restore(self._generators.states())
        return twin

    def get_keys_to_action(self) -> dict[tuple[int, ...], Any]:
        """Key codes to actions, as `gymnasium.utils.play` wants them."""
        said: dict[tuple[int, ...], Any] = keys_to_action(self.world.spec)
        if isinstance(self._actions, CommandSpace):
            return said
        return {keys: self.commands.index(command) for keys, command in said.items()}

    def _shown(self) -> np.ndarray:
        self._show_window()
        return self._rollout.observations().cpu().numpy()[0]
