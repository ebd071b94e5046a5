"""A run as one page that needs no server: curves, pictures, the newest dream, figures."""

from __future__ import annotations

import base64
import html
import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from magi_world.training.estimate import STAGES, duration, read_estimate

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
    path = folder / REPORT
    part = path.with_suffix(".part")
    part.write_text(page, encoding="utf-8")
    os.replace(part, path)
    return path


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
