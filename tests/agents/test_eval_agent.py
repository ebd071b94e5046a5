"""`magi-world eval-agent`: what it prints, keeps and refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from magi_world.agents.judge import baseline_names
from magi_world.demos import cli
from magi_world.demos.commands.agents import find_config, no_litter
from magi_world.io.package import write_package
from magi_world.loading import load_world
from tests.envs.real_toy import SHIPPED, toy_config
from tests.envs.worlds import heads
from tests.tiny import tiny_parts, tiny_text


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The toy's configuration as a YAML file, in a folder to work in."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(SHIPPED.read_text())
    toy = toy_config()
    events = {"hit": {"key": "hits", "index": 0}}
    changed = {
        "env": toy.record.env, "policy": toy.record.policy, "env_options": {}, "events": events,
        "actions": dict(toy.record.actions), "frame_size": [16, 16],
    }  # fmt: skip
    del config["record"]["scenes"]
    config["record"].update(changed)
    config["commands"] = {name: {"phrases": [f"please {name}"]} for name in toy.record.actions}
    config["heads"].update({"events": ["hit", "death"], "reward": dict(toy.heads.reward)})
    config.update({"name": "bar", "default_command": "stay", "starts_before": ""})
    Path("bar.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return "bar.yaml"


def test_eval_agent(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--config", config_file, "--episodes", "3"]
    agents = ["constant:go left", "random"]
    assert cli.main(["eval-agent", *agents, *common, "-o", "r.json", "--video", "v.mp4"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].startswith("constant:go left  ")
    for name in ("constant:go left", "random"):
        film = f"v-{name.replace(':', '-').replace(' ', '-')}.mp4"
        assert f"{film}: {name}, seed " in told.err
        assert Path(film).is_file()
    before = Path("r.json").read_bytes()
    assert cli.main(["eval-agent", "random", *common, "-o", "r.json", "--markdown"]) == 0
    assert capsys.readouterr().out.splitlines()[3].split()[:4] == ["|", "random", "|", "3"]
    assert Path("r.json").read_bytes() == before, "nothing was played again"
    assert cli.main(["eval-agent", "constant:go left", *common, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    expected = json.loads(before)["agents"]["constant:go left"]
    for episode in (*record["agents"]["constant:go left"]["episodes"], *expected["episodes"]):
        del episode["seconds"]
    assert record["agents"]["constant:go left"]["episodes"] == expected["episodes"]


def test_a_world_is_found_by_name_or_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "configs" / "arena.yaml"
    own.parent.mkdir()
    own.write_text("name: arena")
    assert find_config("arena").resolve() == own
    assert find_config(str(own)) == own
    assert find_config("courtyard").resolve() == SHIPPED
    with pytest.raises(FileNotFoundError, match=r"--config is 'nowhere'.*looked for nowhere"):
        find_config("nowhere")


def test_what_a_simulator_leaves_behind_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / "_vizdoom.ini").write_text("somebody's own")

    def play() -> None:
        (tmp_path / "_vizdoom").mkdir()
        (tmp_path / "_vizdoom" / "save").write_text("litter")
        (tmp_path / "results.json").write_text("{}")
        raise KeyboardInterrupt

    with no_litter(tmp_path), pytest.raises(KeyboardInterrupt):
        play()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["_vizdoom.ini", "results.json"]


def test_baselines(config_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = baseline_names(["stay", "go left"])
    assert names == ["random", "constant:stay", "constant:go left", "collect"]
    assert baseline_names(["stay", "go left"], dream=True) == names[:-1]
    given = ["--baselines", "--config", config_file, "--episodes", "1", "-o", "r.json"]
    assert cli.main(["eval-agent", *given]) == 0
    kept = json.loads(Path("r.json").read_text())["agents"]
    assert list(kept) == baseline_names(["stay", "go left", "go right"])


def test_eval_agent_in_a_dream(
    config_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dream"
    parts = replace(tiny_parts(), text=tiny_text(folder / "text"), heads=heads())
    write_package(folder, parts, torch.float32)
    given = ["eval-agent", "constant:turn left", "--config", config_file, "--episodes", "1"]
    given += ["--dream", "dream"]
    assert cli.main(given) == 2
    assert "--dream needs --max-chunks" in capsys.readouterr().err
    assert cli.main([*given, "--max-chunks", "2", "-o", "d.json"]) == 0
    record = json.loads(Path("d.json").read_text())
    assert record["setting"]["dream"] == load_world(folder).spec.fingerprint != ""
    assert record["agents"]["constant:turn left"]["episodes"][0]["chunks"] <= 2
    assert cli.main(["eval-agent", "random", "--config", config_file, "-o", "d.json"]) == 2
    assert "write to another file" in capsys.readouterr().err


def test_eval_agent_says_what_is_wrong(
    config_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, words in (
        ([], "no AGENT was named"),
        (["constant:fly"], "'fly'"),
        (["clever"], "'clever'"),
        (["random", "--video", "film.gif"], "must end in .mp4"),
        (["random", "--seed", "-1"], "seed is -1"),
    ):
        assert cli.main(["eval-agent", *arguments, "--config", config_file]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["eval-agent", "random", "--config", "none.yaml"]) == 2
    with pytest.raises(SystemExit) as ended:
        cli.main(["eval-agent", "--help"])
    assert ended.value.code == 0
    assert '"constant:turn left"' in capsys.readouterr().out
