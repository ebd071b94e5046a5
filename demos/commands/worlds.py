"""Worlds: `worlds`, `new-world`, `train-world`, `eval-world`, `export-recording`, and the hub."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from magi_world.demos.commands.options import (
    DEVICE,
    Command,
    Count,
    File,
    JsonOption,
    Opt,
    OptFile,
    Output,
    Switch,
    known_device,
    option,
    print_json,
    reads,
    required,
)

if TYPE_CHECKING:
    from magi_world.training.settings import WorldTrainConfig

EXTRA = 'training needs more packages: pip install "magi-world[train]"'


@dataclass(frozen=True, kw_only=True)
class Worlds(JsonOption):
    """List the worlds that are here.

    Those that can be loaded by name, and the released models that need --weights.
    """

    def run(self) -> int:
        from magi_world.io.released import PRESETS
        from magi_world.loading import world_folders

        worlds = [describe(name, folder) for name, folder in world_folders().items()]
        if self.json:
            print_json({"worlds": worlds, "released": list(PRESETS)})
            return 0
        for world in worlds:
            print(f"{world['name']}   {world['folder']}, {world['bytes'] / 1e6:.1f} MB")
            if "commands" in world:
                height, width = world["frame_size"]
                print(f"    {height}x{width} at {world['fps']} frames/s. {world['description']}")
                print(f"    commands: {', '.join(world['commands'])}")
            for problem in world["problems"]:
                print(f"    PROBLEM: {problem}")
        if not worlds:
            print("no world is installed")
        print(f"\nwith --weights DIR: {', '.join(PRESETS)}")
        return 0


def describe(name: str, folder: Path) -> dict[str, Any]:
    """What a package says about itself, and what is wrong with it."""
    from magi_world.io.package import check_package, read_record

    size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    facts: dict[str, Any] = {"name": name, "folder": str(folder), "bytes": size}
    try:
        record = read_record(folder)
        facts |= {
            "frame_size": record["frame_size"],
            "fps": record["fps"],
            "commands": [command["name"] for command in record["commands"]],
            "description": record.get("description", ""),
            "licence": record.get("licence", ""),
        }
        facts["problems"] = check_package(folder)
    except (ValueError, OSError, KeyError, TypeError) as error:
        facts["problems"] = [str(error)]
    return facts


@dataclass(frozen=True, kw_only=True)
class NewWorld(Command):
    """Write the configuration of a world of your own.

    Looks at a Gymnasium environment (plays it for a few seconds) and writes a commented
    configuration for train-world: commands for its actions, sizes, speeds.
    """

    env: Annotated[Positional[str], arg(metavar="ENV_ID")] = required(
        "for gymnasium.make, or module:function()"
    )
    module: Opt[str] = option("imported first: it registers the environment")
    output: Annotated[OptFile, Output] = option("default: ENV_ID.yaml, here")
    name: Opt[str] = option("of the world; default: the file's")
    force: Switch = option("overwrite the file if it is there", False)
    seconds: Count = option("to play it", 20)

    def run(self) -> int:
        from magi_world.io.files import write_text
        from magi_world.training.new_world import world_yaml
        from magi_world.training.propose import look
        from magi_world.training.settings import importable, read_settings

        path = self.output or Path(f"{slug(self.env)}.yaml")
        if path.exists() and not self.force:
            raise ValueError(
                f"{path} is there already; --force overwrites it, -o names another file"
            )
        # What stands beside the file may name the environment.
        importable(path.resolve().parent)
        found = look(self.env, self.module, self.seconds)
        write_text(path, world_yaml(found, self.name or path.stem))
        read_settings(path)
        height, width = found.picture
        small = "x".join(map(str, found.frame_size))
        print(f"{path}: {len(found.actions)} commands ({', '.join(found.actions)})")
        print(
            f"    pictures {height}x{width} -> {small}, {found.frames_per_chunk} frames a chunk, "
            f"{found.fps} frames/s, a step takes {found.step_seconds * 1e3:.1f} ms"
        )
        for note in found.notes:
            print(f"    note: {note}", file=sys.stderr)
        print(f"next: magi-world train-world {path} --check")
        return 0


def slug(env: str) -> str:
    """A file's name for an environment: "minigrid:MiniGrid-Empty-8x8-v0" -> minigrid-empty-8x8."""
    stem = re.split(r"[:/]", env.removesuffix("()"))[-1]
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"-v\d+$", "", stem).lower()).strip("-") or "world"


QUICK = "10"  # minutes


def _minutes(text: str = QUICK) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 10_000:
        raise ValueError(f"{text!r} is not a number of minutes")
    return value


@dataclass(frozen=True, kw_only=True)
class RunOptions(Command):
    """Of commands for the training run of a world."""

    config: Positional[File] = required("a YAML file")
    run_folder: Annotated[OptFile, arg(name="run")] = option("default: runs/CONFIG")

    @property
    def folder(self) -> Path:
        return self.run_folder or Path("runs") / self.config.stem


@dataclass(frozen=True, kw_only=True)
class TrainWorld(RunOptions):
    """Train a world from a simulator.

    Records the simulator and trains the world, as a configuration says. Ctrl-C saves everything;
    the same command goes on from there.
    """

    device: Opt[str] = option(DEVICE)
    no_resume: Switch = option("refuse a folder that has checkpoints in it", False)
    start_from: Annotated[Opt[str], arg(name="from")] = option(
        "begin with the weights of this world (a name or a folder) instead of from nothing"
    )
    check: Switch = option(
        "only check everything, and estimate what it takes; nothing is recorded or trained", False
    )
    quick: Annotated[Opt[float], reads(_minutes, "[MINUTES]", 0, 1)] = option(
        f"a try of all stages in about so many minutes ({QUICK}); the same folder then goes on"
    )

    def run(self) -> int:
        return _stoppable(self._train)

    def _train(self) -> int:
        from magi_world.training.run import alone
        from magi_world.training.train import train_world

        device = known_device(self.device)
        if not self.check:
            with alone(self.folder):  # said before the rehearsal, not after it
                pass
        config, problems = self._checked(device)
        if self.check:
            return problems
        made = train_world(config, self.folder, device, not self.no_resume, self.start_from)
        print(f"{made}   (magi-world play {made})")
        if self.quick is not None:
            print("that was a try; the same command without --quick trains it in full")
        return 0

    def _checked(self, device: str | None) -> tuple[WorldTrainConfig, int]:
        """The configuration, as it is to be trained, and 1 where something is wrong with it.
        Raises ValueError: it cannot be trained.
        """
        import torch

        from magi_world.training.preflight import preflight, shown
        from magi_world.training.progress import read_estimate
        from magi_world.training.rehearse import planned, quick_config, rehearse
        from magi_world.training.settings import read_settings

        # A run that goes on was checked when it began, and has its estimate.
        goes_on = read_estimate(self.folder) and list(self.folder.glob("*.ckpt"))
        if goes_on and not self.check and self.quick is None:
            return read_settings(self.config), 0
        found = preflight(self.config, self.folder)
        for finding in found.findings:
            if self.check or not finding.fatal:
                print(shown(finding, found.lines), file=sys.stderr)
        if self.check and any(f.fatal for f in found.findings):
            return found.config, 1
        found.done()
        assert found.played is not None, "without a fatal finding it was played"
        print("a rehearsal of every stage, to see how long each takes ...", file=sys.stderr)
        where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        config, out = found.config, sys.stdout if self.check else sys.stderr
        estimate = rehearse(config, found.played, where)
        if self.quick is not None:
            config = quick_config(config, estimate, self.quick)
            estimate = planned(config, estimate)
        told = f"disk {estimate.disk / 1e9:.1f} GB, memory about {estimate.memory / 1e9:.1f} GB"
        print("\n".join([*estimate.table(), told]), file=out)
        if self.check:
            print(f"{self.config}: it can be trained")
        else:
            estimate.save(self.folder)
        return config, 0


@dataclass(frozen=True, kw_only=True)
class EvalWorld(RunOptions, JsonOption):
    """Measure a trained world.

    Packs the newest checkpoints of a run, finished or not, and measures them.
    """

    device: Opt[str] = option(DEVICE)

    def run(self) -> int:
        return _stoppable(self._evaluate)

    def _evaluate(self) -> int:
        from magi_world.training.train import evaluate_world

        figures = evaluate_world(self.config, self.folder, known_device(self.device))
        if self.json:
            print_json(figures)
        else:
            print("\n".join(_lines(figures)))
        return 0


@dataclass(frozen=True, kw_only=True)
class ExportRecording(RunOptions):
    """Turn the recording of a world's training into a Minari dataset.

    The simulator's episodes, as train-world recorded them, for offline learning. Nothing is
    recorded or trained.
    """

    minari: str = required("name of the dataset, e.g. arena/recorded-v0")
    observation: Literal["chunk", "frame"] = option(
        "all frames of a chunk, or its last one", "chunk"
    )
    action: Literal["text", "discrete"] = option(
        "the command, or its place in the list of commands", "text"
    )
    part: Literal["all", "train", "held-out"] = option(
        "all chunks, those that are trained on, or those that are not", "all"
    )

    def run(self) -> int:
        from magi_world.training.data import split_shards
        from magi_world.training.datasets import ExportConfig, export_recording
        from magi_world.training.settings import read_settings

        record = read_settings(self.config).record
        train, held_out = split_shards(self.folder / "data", record.held_out_shards)
        paths = {"all": [*train, *held_out], "train": train, "held-out": held_out}[self.part]
        config = ExportConfig(self.observation, self.action)
        made = export_recording(paths, self.minari, record, config)
        print(f"{self.minari}: {made.total_episodes} episodes, {made.total_steps} chunks")
        return 0


def _stoppable(job: Callable[[], int]) -> int:
    try:
        from magi_world.interrupts import Stopped
        from magi_world.io.records import Mistakes

        return job()
    except ModuleNotFoundError as error:
        raise ImportError(f"{EXTRA} ({error})") from error
    except Mistakes as error:
        print(error, file=sys.stderr)
        return 2
    except Stopped as error:
        print(str(error) or "stopped; the same command goes on from here", file=sys.stderr)
        return 130


def _lines(figures: dict[str, Any], indent: str = "") -> list[str]:
    """Nested figures for people."""
    told = []
    for name, value in figures.items():
        if isinstance(value, dict):
            told += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        else:
            shown = f"{value:.4g}" if isinstance(value, float) else str(value)
            told.append(f"{indent}{name}: {shown}")
    return told


@dataclass(frozen=True, kw_only=True)
class Download(Command):
    """Fetch a world or the released weights from the Hugging Face hub.

    OWNER/NAME installs a world, which can then be loaded by its name. The name of a released model
    (magi-1-4.5b-distill, ...) fetches its weights into --to, tens of gigabytes; the same command
    goes on with what was stopped.
    """

    what: Annotated[Positional[str], arg(metavar="WORLD")] = required(
        "OWNER/NAME[@REVISION], or magi-1-..."
    )
    to: OptFile = option("default: ~/.magi-world/worlds")
    overwrite: Switch = option("replace a world of that name", False)

    def run(self) -> int:
        from magi_world.io import hub
        from magi_world.io.released import PRESETS
        from magi_world.loading import INSTALLED

        if self.what in PRESETS:
            if self.to is None:
                raise ValueError(f"{self.what} needs --to DIR, where there is room for its weights")
            folder = hub.download_released(self.what, self.to)
            print(f"{folder}   (magi-world doctor --weights {folder})")
            print("special_tokens.npz comes with the code of MAGI-1; doctor says what is missing")
            return 0
        folder = hub.download_world(self.what, self.to or INSTALLED.expanduser(), self.overwrite)
        named = folder.name if self.to is None else folder
        print(f"{folder}   (magi-world play {named})")
        return 0


@dataclass(frozen=True, kw_only=True)
class PushWorld(Command):
    """Put a world on the Hugging Face hub.

    With a page about it, made from its world.json. Log in with `hf auth login` first.
    """

    world: Positional[str] = required("a name or a folder")
    address: Annotated[Positional[str], arg(metavar="OWNER/NAME")]
    private: Switch = option("a repository that is made is private", False)
    message: Annotated[Opt[str], arg(aliases=["-m"])] = option("of the commit")

    def run(self) -> int:
        from magi_world.io import hub
        from magi_world.loading import find_package

        folder = find_package(self.world)
        print(hub.push_world(folder, self.address, self.private, self.message))
        print(f"magi-world download {self.address}", file=sys.stderr)
        return 0
