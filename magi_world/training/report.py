"""While a run trains: every few minutes the unfinished world is packed, dreamt in and reported.

A thread of its own reads the checkpoints that the stages save, so that no stage knows of it. What
goes wrong here is written into the report and never stops the training.
"""

from __future__ import annotations

import base64
import html
import io
import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from magi_world.io.files import replacing, write_text
from magi_world.io.package import read_package
from magi_world.io.safetensors_io import load_tensors
from magi_world.model.dit import DiT
from magi_world.model.static_text import StaticTextEncoder
from magi_world.model.vae import VAE
from magi_world.training.assemble import make_package, pick_starts
from magi_world.training.codec import CODEC
from magi_world.training.data import LatentDataset
from magi_world.training.loop import steps_done
from magi_world.training.progress import STAGES, duration, read_estimate
from magi_world.training.run import Run
from magi_world.training.text import TEXT
from magi_world.world.world import World

REPORT = "report.html"
DREAM = "dream.gif"

NOT_CURVES = ("step", "time", "seconds")

STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse}td,th{padding:.1rem .8rem .1rem 0;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}
img{max-width:100%;image-rendering:pixelated}figure{margin:1rem 0}
svg{background:#fff;max-width:100%;height:auto}
.curves{display:flex;flex-wrap:wrap;gap:1rem}
"""
EVERY = 240.0  # seconds between reports
UNFINISHED = "unfinished"  # in the figures of a package that is still trained


def read_log(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves of a stage's log: name -> (step, value); a line that is cut off is skipped."""
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in path.read_text().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        for name, value in row.items():
            if name not in NOT_CURVES and isinstance(value, int | float):
                curves.setdefault(name, []).append((int(row["step"]), float(value)))
    return curves


def curve_svg(name: str, curves: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Losses of a stage, and what was measured on held-out chunks, as an SVG picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.8), layout="constrained")
    axes = figure.subplots()
    shown = [n for n in curves if n != "grad"]
    positive = all(v > 0 for n in shown for _, v in curves[n])
    for label in shown:
        steps, values = zip(*curves[label], strict=True)
        many = len(steps) > 40
        axes.plot(steps, values, linewidth=0.8 if many else 1.6, label=label)
    axes.set(title=name, xlabel="step")
    if positive:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def write_report(folder: Path, name: str, description: str = "") -> Path:
    """Write ``folder/report.html`` from what lies in a run's folder, in one move."""
    parts = [f"<h1>{html.escape(name)}</h1>", f"<p>{html.escape(description)}</p>"]
    parts.append(f"<p>Written {time.strftime('%Y-%m-%d %H:%M:%S')}. Reload to see it newer.</p>")
    parts += _stages(folder) + _dream(folder) + _strips(folder) + _curves(folder) + _quality(folder)
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(name)}</title><style>{STYLE}</style><body>{''.join(parts)}</body></html>"
    )
    write_text(folder / REPORT, page)
    return folder / REPORT


def _stages(folder: Path) -> list[str]:
    """Where every stage is."""
    estimate = read_estimate(folder)
    rows = []
    for stage in STAGES:
        log = folder / f"{stage}.jsonl"
        done = 0
        if stage == "record":
            done = len(list((folder / "data").glob("shard_*.safetensors")))
            shown = f"{done} shards"
        elif log.exists():
            steps = [s for curve in read_log(log).values() for s, _ in curve]
            shown = f"step {max(steps, default=0)}"
        else:
            shown = "done" if stage == "evaluate" and (folder / "quality.json").exists() else "-"
        total = str(estimate.steps.get(stage, "")) if estimate else ""
        took = duration(estimate.of(stage)) if estimate and estimate.of(stage) else ""
        cells = (stage, shown, total, took)
        rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    head = "<tr><th>stage</th><th>now</th><th>of</th><th>estimated</th></tr>"
    return ["<h2>Stages</h2><table>", head, *rows, "</table>"]


def _dream(folder: Path) -> list[str]:
    told = folder / "dream.txt"
    caption = html.escape(told.read_text()) if told.exists() else ""
    if not (folder / DREAM).exists():
        return [f"<p>{caption}</p>"] if caption else []
    return [
        "<h2>The newest dream</h2>",
        f"<figure>{_image(folder / DREAM)}<figcaption>{caption}</figcaption></figure>",
    ]


def _strips(folder: Path) -> list[str]:
    captions = {
        "reconstruction": "real above, through the autoencoder below",
        "rollout_16": "16 chunks: real above, dreamed below, under the same commands",
        "rollout_64": "64 chunks: real above, dreamed below, under the same commands",
        "long_dream": "a long dream under random commands, a row a world",
    }
    out = []
    for name, caption in captions.items():
        path = folder / "strips" / f"{name}.png"
        if path.exists():
            out.append(f"<figure>{_image(path)}<figcaption>{caption}</figcaption></figure>")
    return ["<h2>Pictures</h2>", *out] if out else []


def _image(path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    kind = path.suffix.removeprefix(".")
    return f'<img alt="{html.escape(path.stem)}" src="data:image/{kind};base64,{data}">'


def _curves(folder: Path) -> list[str]:
    logs = [(s, folder / f"{s}.jsonl") for s in STAGES if (folder / f"{s}.jsonl").exists()]
    drawn = [curve_svg(name, found) for name, path in logs if (found := read_log(path))]
    return ["<h2>Curves</h2>", '<div class="curves">', *drawn, "</div>"] if drawn else []


def _quality(folder: Path) -> list[str]:
    path = folder / "quality.json"
    if not path.exists():
        return []
    rows = "".join(
        f'<tr><td>{html.escape(name)}</td><td class="n">{html.escape(value)}</td></tr>'
        for name, value in flat(json.loads(path.read_text()))
    )
    return ["<h2>Figures</h2><table>", rows, "</table>"]


def flat(values: Any, where: str = "") -> list[tuple[str, str]]:
    """Nested figures as (path, value)."""
    if isinstance(values, Mapping):
        return [
            row for k, v in values.items() for row in flat(v, f"{where} / {k}" if where else str(k))
        ]
    if isinstance(values, list):
        return [(where, ", ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in values))]
    return [(where, f"{values:.4g}" if isinstance(values, float) else str(values))]


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
    vae.load_state_dict(load_tensors(run.folder / CODEC))
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
    pace = max(20, round(1000 / spec.fps))
    with replacing(path) as part:
        more = {"append_images": pictures[1:], "duration": pace, "loop": 0}
        pictures[0].save(part, "GIF", save_all=True, **more)
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
        try:
            write_report(self.run.folder, self.run.config.name, self.run.config.description)
        except Exception as error:
            stamp = time.strftime("%H:%M:%S")
            (self.run.folder / "report.error").write_text(f"{stamp} {error!r}\n")
