"""`magi-world record SCRIPT -o FILE` and `replay SESSION`: films of scripts and of sessions."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional

from magi_world.demos.commands.options import (
    File,
    JsonOption,
    Opt,
    OptCount,
    OptFile,
    Output,
    Several,
    Switch,
    WorldOptions,
    file,
    option,
    print_json,
    required,
)

if TYPE_CHECKING:
    from magi_world.demos.record import RecordConfig, Recording
    from magi_world.session.session import Session
    from magi_world.world.world import World

SCRIPTS = Path(__file__).parents[1] / "scripts"


def shipped() -> list[str]:
    """Names of the scripts that come along."""
    return sorted(path.stem for path in SCRIPTS.glob("*.yaml"))


def find_script(name: str) -> Path:
    """A script by path, or one that is shipped by name. Raises FileNotFoundError: neither."""
    path = file(name)
    if path.is_file():
        return path
    known = SCRIPTS / f"{name}.yaml"
    if known.is_file():
        return known
    raise FileNotFoundError(f"there is no script {name}; shipped ones are {', '.join(shipped())}")


@dataclass(frozen=True, kw_only=True)
class FilmOptions(JsonOption):
    """What is written, and how it looks."""

    output: Annotated[Several[File], Output] = option(".mp4, .gif, or .png for a contact sheet", ())
    captions: Switch = option("burn the commands in", False)
    upscale: OptCount = option("enlarge the picture N times both ways")
    smooth: Switch = option("enlarge smoothly, as the window does; else pixels are repeated", False)
    overwrite: Switch = option("replace files that are there", False)
    quiet: Switch = option("no progress bar", False)
    loading: WorldOptions = required("How a world is loaded.")

    def config(self, resume: bool = False) -> RecordConfig:
        """Raises ValueError for an upscale out of range."""
        from magi_world.demos.record import RecordConfig
        from magi_world.demos.render import PictureConfig

        return RecordConfig(
            picture=PictureConfig(self.upscale, self.captions, self.smooth),
            overwrite=self.overwrite,
            resume=resume,
            quiet=self.quiet or self.json,
        )

    def report(self, made: Recording) -> int:
        """Say what was made; the exit status."""
        if self.json:
            print_json(asdict(made))
        else:
            height, width = made.size
            what = f"{made.video_seconds:.1f} s of video, {height}x{width}, {made.chunks} chunks"
            print(f"{what}, in {made.seconds:.1f} s ({made.frames / made.seconds:.1f} frames/s)")
            for path in (*made.outputs, *filter(None, [made.session])):
                print(f"  {path}")
        if not made.finished:
            print("stopped; the files play, and --resume goes on from here", file=sys.stderr)
        return 0 if made.finished else 130


@dataclass(frozen=True, kw_only=True)
class Record(FilmOptions):
    """Render a script to MP4, GIF or a contact sheet.

    Ctrl-C leaves playable files; --resume goes on from there.
    """

    script: Positional[str] = required(
        f"a YAML file, or one that comes along: {', '.join(shipped())}"
    )
    resume: Switch = option("go on with an interrupted recording", False)
    world: Opt[str] = option("instead of the script's")

    def run(self) -> int:
        from magi_world.demos.record import check_outputs, record
        from magi_world.session.script import read_script

        script = read_script(find_script(self.script))
        config = self.config(self.resume)
        check_outputs(self.output, config)
        name = self.world or script.world
        world = self.loading.open_world(
            name,
            num_steps=script.num_steps,
            window_size=script.window_size,
            frame_size=script.frame_size,
        )
        if self.world is not None:
            script, told = script.fitting(world)
            if told:
                print(told, file=sys.stderr)
        return self.report(record(script.session(world, name), world, self.output, config))


@dataclass(frozen=True, kw_only=True)
class Replay(FilmOptions):
    """Repeat a session, compare it, render it again, or turn it into a script.

    Without further options it is compared with what it was (--verify); exit status 1 says that it
    differs, and the first difference is named.
    """

    session: Positional[File] = required("a .jsonl file")
    verify: Switch = option("compare, and say where it differs", False)
    script: OptFile = option("write it as a script")
    minari: Opt[str] = option("export it as the Minari dataset of this name")
    world: Opt[str] = option("instead of the session's")

    def run(self) -> int:
        from magi_world.session.session import read_session

        session = read_session(self.session)
        if session.truncated and not self.json:
            print(f"{self.session}: the last line was cut off, and is left out")
        if self.script is not None:
            return self._write_script(self.script, session)
        if self.output:
            from magi_world.demos.record import check_outputs

            check_outputs(self.output, self.config(), session)
        wants_other = bool(self.output or self.minari)
        if self.verify or not wants_other:
            status = self._verify(session)
            if status or not wants_other:
                return status
        world = self._world(session)
        if self.minari:
            from magi_world.session.minari import export_minari

            dataset = export_minari(session, world, self.minari)
            print(f"{self.minari}: {dataset.total_episodes} episodes, {dataset.total_steps} chunks")
        if self.output:
            from magi_world.demos.record import record

            return self.report(record(session, world, self.output, self.config()))
        return 0

    def _verify(self, session: Session) -> int:
        from magi_world.demos.record import verdict_text, verify_session

        verdict = verify_session(session, self._world(session), quiet=self.quiet or self.json)
        if self.json:
            print_json({"same": verdict.difference is None, **asdict(verdict)})
        else:
            print(verdict_text(verdict))
        return 0 if verdict.difference is None else 1

    def _world(self, session: Session) -> World:
        """The world of the session, as it was where nothing else was typed."""
        head = session.header
        typed = self.loading
        dtype: Any = typed.dtype or head.dtype
        like = replace(typed, dtype=dtype, attention=typed.attention or head.attention)
        if head.device == "cpu":
            threads = typed.threads or head.threads or None
            like = replace(like, device=typed.device or "cpu", threads=threads)
        return like.open_world(
            self.world or head.world,
            head.num_worlds,
            head.num_steps,
            head.window_size,
            head.frame_size,
            head.noise_scale,
        )

    def _write_script(self, path: Path, session: Session) -> int:
        from magi_world.io.files import write_text
        from magi_world.session.as_script import script_text

        if path.exists() and not self.overwrite:
            raise FileExistsError(f"{path} exists; give --overwrite to replace it")
        write_text(path, script_text(session, self.session.name.split(".")[0], path.parent))
        print(f"  {path}")
        return 0
