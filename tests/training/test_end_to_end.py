"""From an environment's name to a world that plays, by the commands that a newcomer types."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from magi_world import load_world
from magi_world.demos import cli
from magi_world.io.package import check_package, read_record

# The commands need all of the extra `train`.
for needed in ("matplotlib", "model2vec", "transformers"):
    pytest.importorskip(needed)

pytestmark = pytest.mark.slow

# The models of a test: everything else is as `new-world` proposes it.
SMALL = {
    "text": {"channels": 8},
    "codec": {"vae": {"width": 48, "depth": 1, "heads": 4, "latent_channels": 12}},
    "dynamics": {
        "dit": {"layers": 2, "hidden": 32, "ffn": 64, "heads": 4, "kv_groups": 2, "head_dim": 8}
    },
}


def shrink(path: Path, **more: dict[str, object]) -> None:
    """Make the models of a written configuration as small as a test's."""
    values = yaml.safe_load(path.read_text())
    for section, changes in {**SMALL, **more}.items():
        values[section] = {**values[section], **changes}
    values["codec"]["loop"]["batch"] = 4
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def write_words(folder: Path, path: Path) -> None:
    """A text table of the configuration's own words, put where the text stage looks."""
    from tests.tiny import tiny_text

    commands = yaml.safe_load(path.read_text())["commands"]
    said = [p for n, c in commands.items() for p in (n, *c["phrases"], *c["held_out"])]
    words = sorted({w for p in said for w in re.findall(r"[a-z0-9']+", p.lower())})
    tiny_text(folder, [" ".join(words)], channels=8)


@pytest.mark.parametrize("env", ["CartPole-v1", "MiniGrid-Empty-8x8-v0"])
def test_a_name_becomes_a_world(
    env: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = env.startswith("MiniGrid")
    pytest.importorskip("minigrid" if grid else "pygame")
    path, run = tmp_path / "mine.yaml", tmp_path / "run"
    line = ["new-world", env, "-o", str(path), "--seconds", "2"]
    assert cli.main([*line, "--module", "minigrid"] if grid else line) == 0
    shrink(path, record={**yaml.safe_load(path.read_text())["record"], "processes": 1})
    write_words(run / "text", path)
    assert "can be trained" not in capsys.readouterr().out
    train = ["train-world", str(path), "--run", str(run), "--device", "cpu"]
    assert cli.main([*train, "--quick", "0.2"]) == 0
    told = capsys.readouterr()
    assert "without --quick" in told.out
    assert "together" in told.err, "what it takes is told before it is done"
    assert check_package(run / "world") == []
    record = read_record(run / "world")
    assert record["heads"]["own"] is not None, "the environment's reward is learned"
    assert record["heads"]["end"] == "death"
    world = load_world(run, device="cpu")
    chunk = world.reset(seed=0)
    for name in world.spec.command_names:
        chunk = world.step(name)
    assert chunk.frames.shape[1] == world.spec.frames_per_chunk
    figures = json.loads((run / "quality.json").read_text())
    assert set(figures["command_following"]) >= {"real", "trained", "held_out"}
    page = (run / "report.html").read_text()
    for part in ("data:image/gif;base64,", "<svg", "command_following / trained", "dynamics"):
        assert part in page, part


@pytest.mark.skipif("not config.getoption('-m')", reason="takes minutes: -m slow")
def test_carracing_becomes_a_world(tmp_path: Path) -> None:
    pytest.importorskip("Box2D", reason="pip install box2d")
    path, run = tmp_path / "race.yaml", tmp_path / "run"
    assert cli.main(["new-world", "CarRacing-v3", "-o", str(path)]) == 0
    commands = yaml.safe_load(path.read_text())["record"]["actions"]
    assert list(commands) == ["do nothing", "steer left", "steer right", "gas", "brake"]
    shrink(path)
    write_words(run / "text", path)
    train = ["train-world", str(path), "--run", str(run), "--device", "cpu"]
    assert cli.main([*train, "--check"]) == 0
    assert not (run / "data").exists()
    assert cli.main([*train, "--quick", "2"]) == 0
    world = load_world(run, device="cpu")
    world.reset(seed=0)
    assert world.step("gas").frames.any()
