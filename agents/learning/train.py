"""The training run: collect, learn, tell, save; stop at any time and go on as if nothing was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

from magi_world.agents.learning.config import TrainAgentConfig, keep_config
from magi_world.agents.learning.places import Place, open_place
from magi_world.agents.learning.policy import PolicyRecord, save_policy
from magi_world.agents.learning.ppo import BaseCallback, make_learner, policy_weights
from magi_world.agents.learning.progress import Episodes, ProgressFile, losses, told
from magi_world.agents.learning.state import RunState
from magi_world.io.files import only_one
from magi_world.training.loop import Stopped, clean_stop

QUIET_SECONDS = 10.0  # without an update, after which the run says how far it is


def train_agent(
    config: TrainAgentConfig,
    folder: str | Path,
    tell: Callable[[str], None] | None = None,
    place: Place | None = None,
) -> Path:
    """Train a policy, or go on with a run that was stopped.

    Args:
        folder: of the run: ``policy.json`` and ``policy.safetensors`` at the end, ``checkpoints/``
            on the way, ``progress.csv``, ``tensorboard/`` where that package is, ``state/``.
        tell: called with a line an update.
        place: where to train, if not where ``config`` says.

    Returns:
        ``folder``.

    Raises:
        Stopped: a signal asked to stop; the state is saved.
        ValueError: an option that cannot be, or a folder with a run of another configuration.
        ImportError: the simulator is not installed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with only_one(folder / ".lock", str(folder)):
        keep_config(config, folder)
        place = place or open_place(config, folder)
        try:
            with clean_stop() as asked:
                _Run(config, folder, place, asked, tell or _silent).train()
        finally:
            place.vec.close()
    return folder


class _Run(BaseCallback):
    """Stable-Baselines3 calls it; between two updates it has the last word."""

    def __init__(
        self,
        config: TrainAgentConfig,
        folder: Path,
        place: Place,
        asked: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.config, self.folder, self.place = config, folder, place
        self.asked, self.tell = asked, tell
        self.sums, self.broken_off = Episodes(), False
        self.learner = make_learner(config, place, folder / "tensorboard")
        self.clock = {"seconds": 0.0, "world": 0.0}
        self.recent: dict[str, Any] = {}
        self.state: RunState | None = RunState.newest(folder / "state")
        if self.state is not None:
            extra = self.state.put(self.learner, place, self.sums)
            self.clock, self.recent = extra["clock"], extra["recent"]
        self.rows = ProgressFile(folder / "progress.csv", self.learner.num_timesteps)
        self._begin_update()
        self.saved = self.spoke = perf_counter()

    def train(self) -> None:
        """To the end, or until a signal comes."""
        total = self.config.total_steps
        if self.learner.num_timesteps < total:
            self.tell(self._announced(total))
            left = total - self.learner.num_timesteps
            self.learner.learn(left, self, log_interval=total, reset_num_timesteps=False)
            if self.broken_off:
                raise self._stopped()
            self._boundary()
        if self.state is not None:
            self.state.save(self.folder / "state")
        self._keep(self.folder)

    def _on_step(self) -> bool:
        seen = self.locals
        self.sums.add(seen["rewards"], seen["dones"], seen["infos"])
        now = perf_counter()
        if now - self.spoke > QUIET_SECONDS:
            self.spoke = now
            done = self.learner.num_timesteps - self.begun["steps"]
            rate = done / (now - self.begun["time"])
            self.tell(
                f"{self.learner.num_timesteps:>7}/{self.config.total_steps}   collecting: {done} "
                f"of {self.config.update_steps} chunks before the next update, {rate:.1f} a second"
            )
        # A rollout that is broken off is collected again, the same, from the state before it.
        self.broken_off = self.asked()
        return not self.broken_off

    def _on_rollout_start(self) -> None:
        self._boundary()

    def _boundary(self) -> None:
        """Between two updates: a row, a checkpoint, the state."""
        steps = self.learner.num_timesteps
        if steps > self.begun["steps"]:
            self._row(steps)
        self._begin_update()
        extra = {"clock": self.clock, "recent": self.recent}
        self.state = RunState.of(self.learner, self.place, self.sums, extra)
        before, now = (self._mark(s) for s in (steps - self.config.update_steps, steps))
        due = steps > 0 and now > before
        if due:
            self._keep(self.folder / "checkpoints" / f"step_{steps}")
        if due or perf_counter() - self.saved > self.config.save_seconds:
            self.state.save(self.folder / "state")
            self.saved = perf_counter()

    def _announced(self, total: int) -> str:
        done, worlds = self.learner.num_timesteps, self.config.num_envs
        begun = f"going on at step {done}" if done else "beginning"
        return (
            f"{begun}: {total} chunks in {self.place.name}, {worlds} worlds at a time, an update "
            f"every {self.config.update_steps}; Ctrl-C saves, and the same command goes on"
        )

    def _mark(self, steps: int) -> int:
        return max(0, steps) * self.config.checkpoints // self.config.total_steps

    def _begin_update(self) -> None:
        self.begun: dict[str, Any] = {
            "steps": self.learner.num_timesteps,
            "time": perf_counter(),
            "world": self.place.seconds,
        }

    def _row(self, steps: int) -> None:
        seconds = perf_counter() - self.begun["time"]
        world, done = self.place.seconds - self.begun["world"], steps - self.begun["steps"]
        self.clock = {
            "seconds": self.clock["seconds"] + seconds,
            "world": self.clock["world"] + world,
        }
        episodes = self.sums.take()
        found = losses(self.logger.name_to_value)
        row = {
            "steps": steps,
            "return": None,
            "length": None,
            "steps_per_s": done / seconds,
            "frames_per_s": done / seconds * self.place.frames_per_chunk,
            "world_share": world / seconds,
            "seconds": self.clock["seconds"],
            **found,
            **episodes,
        }
        if episodes["episodes"]:
            self.recent = episodes
        for name, value in row.items():
            if name not in found and value is not None:
                self.logger.record(f"run/{name}", value)
        self.logger.dump(steps)
        self.rows.add(row)
        self.spoke = perf_counter()
        total = self.config.total_steps
        self.tell(told(row, total, (total - steps) * self.clock["seconds"] / steps))

    def _keep(self, folder: Path) -> None:
        """Write the policy as it is now."""
        place, config = self.place, self.config
        record = PolicyRecord(
            place.commands,
            place.frame_size,
            config.stacking,
            config.features,
            place.name,
            place.fingerprint,
            self.learner.num_timesteps,
            asdict(config),
            {**self.recent, **self.clock},
        )
        save_policy(folder, record, policy_weights(self.learner))

    def _stopped(self) -> Stopped:
        steps, total = 0, self.config.total_steps
        if self.state is not None:
            self.state.save(self.folder / "state")
            steps = self.state.steps
        return Stopped(
            f"stopped at step {steps} of {total}; the same command goes on from {self.folder}"
        )


def _silent(line: str) -> None:
    """Nobody listens."""
