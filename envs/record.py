"""Films of episodes, written while they happen."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from magi_world.envs.env import MagiWorldEnv
from magi_world.io.media import VideoConfig, VideoWriter
from magi_world.session.events import Load, Said, file_digest
from magi_world.session.session import SessionWriter
from magi_world.world.chunk import Chunk


class RecordChunks(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Writes every frame of every episode to an MP4 while it runs, and a session file beside it.

    A killed run leaves both readable, up to the last second. `magi-world replay` makes the session
    again. Episode n becomes ``NAME-000n.mp4`` and ``NAME-000n.session.jsonl``; what is there
    already is never written over. Where the past was changed (`MagiWorldEnv.restore`, a snapshot
    for a start, frames that came from no file), the state itself is saved beside them.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        folder: str | Path,
        name: str = "episode",
        every: Callable[[int], bool] | None = None,
        upscale: int | None = None,
        crf: int = 18,
        session: bool = True,
    ) -> None:
        """Args:
            folder: where the files go; it is made.
            name: what they begin with.
            every: which episodes (their number, from 0); by default all.
            upscale, crf: as in `magi_world.io.media.VideoConfig`.
            session: write session files too.

        Raises:
            ValueError: ``env`` is no `MagiWorldEnv`, or an argument out of range.
        """
        RecordConstructorArgs.__init__(
            self, folder=folder, name=name, every=every, upscale=upscale, crf=crf, session=session
        )
        super().__init__(env)
        if not isinstance(name, str) or not name.strip(". ") or set(name) & set("/\\\0"):
            raise ValueError(
                f"name is {name!r:.60}; it must be what files in the folder begin with"
            )
        if not isinstance(env.unwrapped, MagiWorldEnv):
            raise ValueError(f"env is {env}; RecordChunks records a MagiWorldEnv")
        self._world_env: MagiWorldEnv = env.unwrapped
        self.folder, self.name, self.every = Path(folder), name, every
        self.with_session = session
        spec = self._world_env.world.spec
        self.video = VideoConfig(spec.fps, spec.frame_size, upscale, crf)
        self.episodes = 0
        self._film: VideoWriter | None = None
        self._session: SessionWriter | None = None
        self._jumps = 0
        self._states = 0

    @property
    def files(self) -> tuple[Path, ...]:
        """What is being written now."""
        return tuple(part.path for part in (self._film, self._session) if part is not None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        result = self.env.reset(seed=seed, options=options)
        self._finish()
        number, self.episodes = self.episodes, self.episodes + 1
        if self.every is None or self.every(number):
            self._start()
        return result

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self._session is not None and self._jumps != self._world_env.jumps:
            self._save_state()
        result = self.env.step(action)
        if self._film is not None:
            chunk = self._world_env.shown_chunk()
            self._write(chunk)
            if self._session is not None:
                reading = self._world_env.reading
                if reading is not None and not reading.plain:
                    self._session.write(Said.of(reading))
                self._session.step(chunk, self._world_env.steer)
        return result

    def close(self) -> None:
        self._finish()
        super().close()

    def _start(self) -> None:
        chunk, world = self._world_env.shown_chunk(), self._world_env.world
        path = self._claimed_path()
        self._film = VideoWriter(f"{path}.mp4", self.video)
        self._jumps, self._states = self._world_env.jumps, 0
        if self.with_session:
            source = self._world_env.source_name
            self._session = SessionWriter(f"{path}.session.jsonl", world, source)
            began = self._world_env.began
            if began is None or (began[0].frames is not None and began[0].file is None):
                self._save_state()
            else:
                begin, scene = began
                start: Any = begin.start
                if begin.file is not None:
                    start = replace(begin.file, path=str(Path(begin.file.path).absolute()))
                self._session.reset(chunk, world.seeds, scene, start)
        self._write(chunk)

    def _write(self, chunk: Chunk) -> None:
        if self._film is not None:
            self._film.write(chunk.frames[0, chunk.skip[0] :])

    def _save_state(self) -> None:
        """A session goes on from a saved state where its events alone would not lead there."""
        if self._session is None:
            return
        stem = str(self._session.path).removesuffix(".session.jsonl")
        path = Path(f"{stem}.{self._states}.safetensors")
        self._world_env.world.snapshot().save(path)
        self._session.write(Load(f"state {self._states}", path.name, file_digest(path)))
        self._states += 1
        self._jumps = self._world_env.jumps

    def _claimed_path(self) -> Path:
        """A number that no file has, not of another worker in the same folder either."""
        self.folder.mkdir(parents=True, exist_ok=True)
        number = self.episodes - 1
        while True:
            stem = f"{self.name}-{number:04d}"
            number += 1
            if any(self.folder.glob(f"{glob.escape(stem)}.*")):
                continue
            path = self.folder / stem
            try:
                # Made only if it is not there, in one go: the film is then written over it.
                Path(f"{path}.mp4").touch(exist_ok=False)
            except FileExistsError:
                continue
            return path

    def _finish(self) -> None:
        for writer in (self._film, self._session):
            if writer is not None:
                writer.close()
        self._film = self._session = None
