"""Beside the training: every few minutes the unfinished world is packed, dreamt in and reported.

A thread of its own reads the checkpoints that the stages save, so that no stage knows of it. What
goes wrong here is written into the report and never stops the training.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from safetensors.torch import load_file

from magi_world.io.package import read_package, read_record
from magi_world.model.dit import DiT
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.training.again import steps_done
from magi_world.training.assemble import make_package, pick_starts
from magi_world.training.files import CODEC, TEXT
from magi_world.training.latents import LatentDataset
from magi_world.training.report import DREAM, write_report
from magi_world.world.world import World

if TYPE_CHECKING:
    from magi_world.training.train import Run

EVERY = 240.0  # seconds between reports
UNFINISHED = "unfinished"  # in the figures of a package that is still trained


def newest_transformer(run: Run) -> tuple[DiT, str]:
    """The averaged weights of the last stage that has a checkpoint, and where it stands.

    Raises:
        ValueError: no stage has one.
    """
    loops = {"distill": run.config.distill.loop, "dynamics": run.config.dynamics.loop}
    for stage, loop in loops.items():
        path = run.folder / f"{stage}.ckpt"
        if path.exists():
            model = DiT(run.config.dynamics.dit)
            state = torch.load(path, map_location="cpu", weights_only=True)
            model.load_state_dict(state["ema"])
            where = f"{stage}, step {state['step']} of {max(loop.steps, state['step'])}"
            return model.to(run.device), where
    raise ValueError(f"{run.folder} has no dynamics.ckpt; train first")


def newest_vae(run: Run) -> VAE:
    """The autoencoder as it is now.

    Raises:
        ValueError: it is not trained yet.
    """
    if not (run.folder / CODEC).exists():
        raise ValueError(f"{run.folder} has no finished autoencoder yet; train first")
    vae = VAE(run.config.codec.vae)
    vae.load_state_dict(load_file(run.folder / CODEC))
    decoder = run.folder / "decoder.ckpt"
    if decoder.exists():
        vae.load_state_dict(torch.load(decoder, map_location="cpu", weights_only=True)["ema"])
    return vae.to(run.device).eval().requires_grad_(False)


def pack_unfinished(run: Run, starts: int = 4) -> str:
    """Write ``run/world`` from the newest checkpoints: a world that plays, without heads.

    Returns:
        Where the training stands, which is in the package's figures too.

    Raises:
        ValueError: there is nothing to pack yet.
    """
    dit, where = newest_transformer(run)
    vae, config = newest_vae(run), run.config
    data = LatentDataset(vae, run.held_out, list(config.commands))
    clips = pick_starts(data, starts, config.start_chunks, config.seed)
    text = StaticTextEncoder(run.folder / TEXT)
    make_package(config, dit, vae, text, clips, None, run.world, {UNFINISHED: where})
    return where


def is_finished(world: Path) -> bool:
    """Whether a package was packed by the last stage."""
    try:
        return UNFINISHED not in read_record(world).get("quality", {})
    except (ValueError, OSError):
        return False


def dream(run: Run, chunks: int = 10, worlds: int = 4, seed: int = 0) -> Path:
    """A film of the package: ``worlds`` dreams beside each other, the same commands in all."""
    world = World(read_package(run.world, run.device), worlds)
    spec = world.spec
    draw = random.Random(seed)
    names = list(spec.command_names)
    said = [name for name in (draw.choice(names) for _ in range(-(-chunks // 2))) for _ in "ab"]
    world.reset(seed)
    frames = []
    for name in said[:chunks]:
        made = world.step(name).frames  # (B, T, H, W, 3)
        frames += [torch.from_numpy(f).flatten(1, 1) for f in made.transpose(1, 0, 2, 3, 4)]
    pictures = [Image.fromarray(torch.cat(list(f), dim=1).numpy()) for f in frames]
    pictures = [p.resize((p.width * 2, p.height * 2), Image.Resampling.NEAREST) for p in pictures]
    path = run.folder / DREAM
    part = path.with_suffix(".part.gif")
    pace = max(20, round(1000 / spec.fps))
    pictures[0].save(part, save_all=True, append_images=pictures[1:], duration=pace, loop=0)
    part.replace(path)
    told = f"{worlds} worlds; two chunks each: {', '.join(said[:chunks:2])}"
    (run.folder / "dream.txt").write_text(told + "\n")
    return path


class Watcher:
    """Reports on a run while it is trained, in a thread of its own.

    As a context manager; `packed` says that the package is now another's to write.
    """

    def __init__(self, run: Run, every: float = EVERY) -> None:
        self.run, self.every = run, every
        self._stop = threading.Event()
        self._mine = threading.Lock()  # who may write run/world
        self._pack = True
        self._seen: tuple[int, int] = (-1, -1)
        self._thread = threading.Thread(target=self._loop, name="report", daemon=True)

    def __enter__(self) -> Watcher:
        self.report()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.report()

    def packed(self) -> None:
        """The transformer is finished: its last stages write the package themselves."""
        with self._mine:
            self._pack = False

    def _loop(self) -> None:
        while not self._stop.wait(self.every):
            with self._mine:
                if self._pack:
                    self._try_dream()
            self.report()

    def _try_dream(self) -> None:
        done = (steps_done(self.run.folder, "dynamics"), steps_done(self.run.folder, "distill"))
        if not any(done) or done == self._seen:
            return
        try:
            where = pack_unfinished(self.run)
            dream(self.run)
            told = self.run.folder / "dream.txt"
            told.write_text(f"{where}. {told.read_text()}")
            self._seen = done
        except Exception as error:
            # A report is not worth a training; the next one may go better.
            (self.run.folder / "dream.txt").write_text(f"no dream: {error}\n")

    def report(self) -> None:
        """Write the page now."""
        try:
            write_report(self.run.folder, self.run.config.name, self.run.config.description)
        except Exception as error:
            stamp = time.strftime("%H:%M:%S")
            (self.run.folder / "report.error").write_text(f"{stamp} {error!r}\n")
