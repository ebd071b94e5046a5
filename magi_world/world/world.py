"""The world: text and pixels in, chunks of video out.

Shapes: B worlds, T video frames, H, W pixels, C latent channels, t latent frames, h, l latent size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from typing import Concatenate, Literal, ParamSpec, TypeVar

import torch

from magi_world.checks import at_least_one, check_prompt, per_world, seeds_per_world, world_rows
from magi_world.language import CommandQueue, Interpreter, Reading
from magi_world.memory import card_full
from magi_world.model.attention import Backend
from magi_world.model.dit import Memo
from magi_world.model.static_text import StaticTextEncoder
from magi_world.sampling.denoise import Progress
from magi_world.sampling.kv_cache import TextKV
from magi_world.sampling.stream import (
    ChunkStream,
    StageResult,
    StreamConfig,
    uninterrupted,
)
from magi_world.world.chunk import Chunk, decode_chunk
from magi_world.world.parts import WorldParts
from magi_world.world.snapshot import PromptState, Snapshot, check_snapshot
from magi_world.world.spec import MAX_CHARACTERS, WorldSpec
from magi_world.world.start import Beginning, Pixels, choose_start, first_chunk

Steer = Literal["now", "queue"]
TEXTS_KEPT = 32  # whose keys and values stay in memory
P = ParamSpec("P")
R = TypeVar("R")


def _on_the_card(method: Callable[Concatenate[World, P], R]) -> Callable[Concatenate[World, P], R]:
    """A method that computes: without gradients, and a full card is one clear error."""

    @wraps(method)
    def told(self: World, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with torch.inference_mode():
                return method(self, *args, **kwargs)
        except torch.OutOfMemoryError as error:
            raise card_full(error, self.spec.name, self.parts.advice) from error

    return told


class World:
    """``num_worlds`` independent worlds, stepped together.

    Every world has its own seed, prompt, start and history; nothing that happens to one is seen by
    another. The same model, seeds, commands and number of worlds give the same bytes on
    the same device; in a batch of another size a world differs by the rounding of sums at most.

    `magi_world.remote.world.RemoteWorld` overrides what is not written out here: the work itself.

    config: what the worlds run with: sampler, attention, noise scale.
    device: where the weights are.    latent_shape: (C, t, h, l) of one world's chunk.
    cache_bytes: memory of the rolling cache; it never grows.
    """

    def __init__(
        self,
        parts: WorldParts,
        num_worlds: int = 1,
        attention: Backend = "sdpa",
        noise_scale: float = 1.0,
    ) -> None:
        """Allocates everything that the worlds will ever need.

        Args:
            attention: which kernel (`magi_world.model.attention`).
            noise_scale: standard deviation of the noise that chunks start from; below 1 the
                world takes fewer chances.

        Raises:
            ValueError: an argument out of range.
        """
        self.parts = parts
        self.config = StreamConfig(
            parts.config.sampler, parts.config.latent_size, num_worlds, attention, noise_scale
        )
        self._stream = ChunkStream(
            parts.dit, self.config, make_cache=parts.make_cache, null_front=parts.null_front
        )
        self.device, self.latent_shape = self._stream.device, self._stream.chunk_shape
        self.cache_bytes = self._stream.cache.config.nbytes
        self._prompts = [PromptState() for _ in range(num_worlds)]
        self._keeps_before = parts.heads_see > 1
        self._texts = Memo(TEXTS_KEPT)
        self._started = [False] * num_worlds
        self._weights_checked = False

    @property
    def spec(self) -> WorldSpec:
        """Name, frame size, pace, commands."""
        return self.parts.spec

    @property
    def interpreter(self) -> Interpreter:
        """What reads texts for this world (`magi_world.language`)."""
        return self.parts.interpreter

    @property
    def num_worlds(self) -> int:
        """Worlds in the batch."""
        return self.config.num_worlds

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seed of every world."""
        return tuple(row.seed for row in self._stream.rows)

    def reset(
        self,
        seed: int | Sequence[int] | None = 0,
        prompt: str | Sequence[str] | None = None,
        image: Pixels | None = None,
        video: Pixels | None = None,
        start: int | Literal["text"] | None = None,
        worlds: Sequence[int] | None = None,
    ) -> Chunk:
        """Start anew, all worlds or some; the others are not touched.

        Args:
            seed: one number (world i gets seed + i), one per world, or None for fresh ones.
            prompt: the scene, one or one per world; None is the world's own.
            image: one (H, W, 3) uint8 array for all, or (n, H, W, 3).
            video: (T, H, W, 3) uint8 array for all, or (n, T, H, W, 3), of any length T.
            start: number of one of the world's own start videos, or "text" for none at all; by
                default the seed picks one where the world has them and nothing else is given.
            worlds: which ones, by default all.

        Returns:
            The start frames, padded or cut to one chunk; with text alone the first chunk, denoised.

        Raises:
            ValueError: an argument of the wrong kind, shape or number. Nothing has changed then.
        """
        rows = world_rows(worlds, self.num_worlds)
        seeds = seeds_per_world(seed, len(rows))
        scenes = per_world("prompt", prompt, len(rows), str)
        return self._begin(Beginning(rows, seeds, scenes, image, video, start))

    @_on_the_card
    def _begin(self, asked: Beginning) -> Chunk:
        """`reset`, once it is known of which worlds."""
        rows, seeds = asked.rows, asked.seeds
        own = [self.spec.scene if s is None else self._understood(s) for s in asked.scenes]
        chosen = choose_start(self.parts, seeds, asked.image, asked.video, asked.start)
        first = self.spec.default_command
        queue = CommandQueue(command=first, rest=first)
        states = [PromptState(scene, first or "", queue=queue) for scene in own]
        captions = [self._text_kv(self.spec.caption(s.scene, s.command)) for s in states]
        for row, state in zip(rows, states, strict=True):
            # Whoever interrupts this has to reset these again.
            self._prompts[row], self._started[row] = state, False
        self._stream.reset(rows, seeds, None if chosen is None else chosen.latents)
        if chosen is None:
            self._fill_window(rows, captions)
            stage = self._compute(rows, captions, None)
            chunk = self.decode(Chunk.of(states, stage.x[:, 0].clone()))
            self._stream.commit(stage)
        else:
            width, length = self.parts.config.sampler.chunk_width, self.spec.frames_per_chunk
            latents, frames = first_chunk(chosen, width, length)
            chunk = Chunk.of(states, latents.to(self.device).clone())
            chunk = self.decode(chunk) if frames is None else chunk.with_pixels(frames)
        for row in rows:
            self._started[row] = True
        return chunk

    def say(
        self,
        text: str | Sequence[str | None],
        worlds: Sequence[int] | None = None,
        strict: bool = True,
    ) -> tuple[Reading, ...]:
        """Tell worlds, in sentences, what to do; steps without a command then do it.

            world.say("turn left twice, then walk forward for 3 seconds")
            chunk = world.step()

        Args:
            text: one for all or one per world; None tells a world nothing.
            worlds: which ones, by default all.
            strict: what is not understood is not obeyed, and what was said before goes on; False
                takes the text as it is, without matching it.

        Returns:
            What each text was read as, in order (`magi_world.language`).

        Raises:
            ValueError: a text that is no str, too long, or the wrong number of them; a world that
                was not reset. Nothing has changed then.
        """
        rows = self._started_rows(worlds)
        readings, states = [], []
        for row, said in zip(rows, per_world("text", text, len(rows), str), strict=True):
            if said is None:
                continue
            state = self._prompts[row]
            if strict:
                if (long := len(said)) > MAX_CHARACTERS:
                    raise ValueError(f"text has {long:,} characters; at most {MAX_CHARACTERS:,}")
                reading = self.interpreter.read(said, state.queue)
            else:
                reading = self.interpreter.verbatim(self._understood(said))
            readings.append(reading)
            states.append((row, replace(state, queue=state.queue.say(reading))))
        for row, state in states:
            self._prompts[row] = state
        return tuple(readings)

    @property
    def queues(self) -> tuple[CommandQueue, ...]:
        """What every world has been told and not done yet."""
        return tuple(state.queue for state in self._prompts)

    def set_queue(self, queue: CommandQueue, world: int = 0) -> None:
        """Replace what a world still has to do, e.g. by ``world.queues[0].drop(1)``."""
        (row,) = self._started_rows([world])
        self._prompts[row] = replace(self._prompts[row], queue=queue)

    def step(
        self,
        command: str | Sequence[str] | None = None,
        steer: Steer = "now",
        progress: Progress | None = None,
        worlds: Sequence[int] | None = None,
    ) -> Chunk:
        """The next chunk of every world, or of some, under the given command.

        Args:
            command: one for all or one per world, taken as it is; None goes on with what was said
                (`say`), or else with the command in force.
            steer: with several chunks in flight, "now" puts them all under the new command,
                "queue" only those that begin now.
            progress: called with (denoising steps done, steps in all).
            worlds: which ones, by default all; the others are not touched and cost nothing.

        Returns:
            The decoded chunk, a row for each of these worlds; `Chunk.lands` says which chunk the
            command conditions first.

        Raises:
            ValueError: a command that is no str, empty, too long, or the wrong number of them; a
                world that was not reset; weights that hold NaN. The world is as before then, and
                also where ``progress`` raises or Ctrl-C comes.
        """
        return self._step(command, steer, progress, worlds, decoded=True)

    def step_latents(
        self,
        command: str | Sequence[str] | None = None,
        steer: Steer = "now",
        progress: Progress | None = None,
        worlds: Sequence[int] | None = None,
    ) -> Chunk:
        """`step` without decoding, so that `decode` can overlap with the next chunk."""
        return self._step(command, steer, progress, worlds, decoded=False)

    def _step(
        self,
        command: str | Sequence[str] | None,
        steer: Steer,
        progress: Progress | None,
        worlds: Sequence[int] | None,
        decoded: bool,
    ) -> Chunk:
        rows = self._started_rows(worlds)
        if steer not in ("now", "queue"):
            raise ValueError(f"steer is {steer!r}; it must be 'now' or 'queue'")
        due = []
        for row, text in zip(rows, per_world("command", command, len(rows), str), strict=True):
            queue = self._prompts[row].queue
            due.append(queue.next() if text is None else (text, queue.told(text)))
        return self._advance(rows, due, steer, progress, decoded)

    @_on_the_card
    def _advance(
        self,
        rows: Sequence[int],
        due: Sequence[tuple[str | None, CommandQueue]],
        steer: Steer,
        progress: Progress | None,
        decoded: bool,
    ) -> Chunk:
        """`step` of these rows: for each what is due, None for nothing new, and what is after."""
        states, captions = [], []
        for row, (told, queue) in zip(rows, due, strict=True):
            state = self._prompts[row]
            text = state.command if told is None else self._understood(told)
            queued = self._stream.rows[row].window.count if steer == "queue" else 0
            lands = state.lands if text == state.command else state.steps + 1 + queued
            states.append(PromptState(state.scene, text, state.steps + 1, lands, queue))
            captions.append(self._text_kv(self.spec.caption(state.scene, text)))
        # All that takes time comes before the world moves on, so that an end in the middle of it
        # leaves the world, and the window that the first step fills, as they were.
        with self._stream.attempt():
            self._fill_window(rows, captions)
            if steer == "now":
                for row, caption in zip(rows, captions, strict=True):
                    self._stream.steer(row, caption)
            stage = self._compute(rows, captions, progress)
            length = self.parts.config.vae.patch_length
            skip = tuple(row.repeated * length for row in stage.rows)
            chunk = Chunk.of(states, stage.x[:, 0].clone(), skip)
            if self._keeps_before:
                # Written over when the step is done.
                before = self._stream.newest_clean[self._stream.indices(rows)].clone()
                chunk = replace(chunk, before=before)
            chunk = self.decode(chunk) if decoded else chunk
        with uninterrupted():
            self._stream.commit(stage)
            for row, state in zip(rows, states, strict=True):
                self._prompts[row] = state
        return chunk

    @_on_the_card
    def decode(self, chunk: Chunk) -> Chunk:
        """The same chunk with its frames. May run while the next chunk is denoised."""
        return decode_chunk(self.parts, chunk)

    def snapshot(self, worlds: Sequence[int] | None = None) -> Snapshot:
        """The state of all worlds, which takes memory once they move on; or a copy of some."""
        rows = self._started_rows(worlds)
        return Snapshot(
            self.spec.fingerprint,
            self.parts.config.sampler,
            self._stream.state() if worlds is None else self._stream.state_of(rows),
            tuple(self._prompts[row] for row in rows),
            self.config.noise_scale,
        )

    def restore(
        self, snapshot: Snapshot, worlds: Sequence[int] | None = None, row: int | None = None
    ) -> None:
        """Continue from a snapshot, exactly.

        Args:
            worlds: which worlds are put back; by default all.
            row: the world of the snapshot that each of them continues; by default its own.

        Raises:
            ValueError: a snapshot of another world, sampler, precision, noise scale or size; one of
                another number of worlds without ``worlds`` or ``row``. Nothing changed then.
        """
        if not isinstance(snapshot, Snapshot):
            raise ValueError(f"snapshot is a {type(snapshot).__name__}; it must be a Snapshot")
        count = snapshot.num_worlds
        if worlds is None and row is None and count != self.num_worlds:
            raise ValueError(
                f"the snapshot is of {count} worlds, this is {self.num_worlds}; say which with "
                "worlds=[...] or row=..."
            )
        targets = world_rows(worlds, self.num_worlds)
        sources = targets if row is None else world_rows([row], count) * len(targets)
        if max(sources) >= count:
            raise ValueError(f"the snapshot holds {count} worlds; there is no world {max(sources)}")
        self._continue(snapshot, targets, sources)

    @_on_the_card
    def _continue(self, snapshot: Snapshot, targets: Sequence[int], sources: Sequence[int]) -> None:
        """`restore`: each of the targets continues the row of the snapshot that is its source."""
        check_snapshot(snapshot, self.spec, self._stream)
        everything = list(range(self.num_worlds))
        with uninterrupted():
            if targets == sources == everything and snapshot.num_worlds == self.num_worlds:
                self._stream.set_state(snapshot.state)
            else:
                for target, source in zip(targets, sources, strict=True):
                    self._stream.set_row(target, snapshot.state, source)
            for target, source in zip(targets, sources, strict=True):
                self._prompts[target], self._started[target] = snapshot.prompts[source], True

    def fork(self, n: int) -> list[World]:
        """``n`` worlds that continue from here; memory is shared until they diverge."""
        forks = [self.another(self.num_worlds) for _ in range(at_least_one("n", n))]
        snapshot = self.snapshot()
        for twin in forks:
            twin.restore(snapshot)
        return forks

    def fork_batch(self, n: int) -> World:
        """One world of n * B rows; rows i*n .. i*n + n - 1 continue world i. For planners."""
        wide, snapshot = self.another(at_least_one("n", n) * self.num_worlds), self.snapshot()
        for row in range(self.num_worlds):
            wide.restore(snapshot, range(row * n, row * n + n), row)
        return wide

    def _understood(self, text: str) -> str:
        """``text``, if it can be encoded and means anything to this world's encoder."""
        check_prompt(text)
        encoder = self.parts.text
        if isinstance(encoder, StaticTextEncoder) and not encoder.knows(text):
            # It would be the null caption, as if nothing had been said.
            raise ValueError(
                f"prompt is {text!r:.80}; {self.spec.name} knows none of its characters, write it "
                "in English"
            )
        return text

    def _started_rows(self, worlds: Sequence[int] | None) -> list[int]:
        rows = world_rows(worlds, self.num_worlds)
        for row in rows:
            if not self._started[row]:
                raise ValueError(f"world {row} was not reset; call reset first")
        return rows

    def _text_kv(self, text: str) -> TextKV:
        """Keys and values of a caption, computed once; the empty one is the null caption."""

        def make() -> TextKV:
            return self._stream.text_kv(self.parts.text.encode(text) if text else None)

        return self._texts.get(text, make)

    def another(self, num_worlds: int) -> World:
        """A world like this one, of so many rows, not yet reset; weights are shared."""
        return World(self.parts, num_worlds, self.config.attention, self.config.noise_scale)

    def _fill_window(self, rows: Sequence[int], captions: Sequence[TextKV]) -> None:
        """Bring worlds that were just reset to where the others are: one chunk short of full."""
        of_row = dict(zip(rows, captions, strict=True))
        for count in range(self.parts.config.sampler.window_size - 1):
            behind = [row for row in rows if self._stream.rows[row].window.count == count]
            if behind:
                self._stream.stage(behind, [of_row[row] for row in behind])

    def _compute(
        self, rows: Sequence[int], captions: Sequence[TextKV], progress: Progress | None
    ) -> StageResult:
        """The stage at whose end the next chunk is clean."""
        stage = self._stream.compute(rows, captions, progress)
        assert stage.landed, "a full window always gives a chunk"
        if not self._weights_checked and not torch.isfinite(stage.x[:, 0]).all():
            raise self.parts.not_finite()
        self._weights_checked = True
        return stage
