"""What is said before anything is recorded, how long it takes, and a try that goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from toy import record_config
from toy_world import write_config

from magi_world.demos import cli
from magi_world.io.records import Mistakes
from magi_world.training.collect import record_shard
from magi_world.training.data import shard_path
from magi_world.training.loop import steps_done
from magi_world.training.preflight import Preflight, preflight, shown
from magi_world.training.progress import STAGES, Estimate, duration, read_estimate
from magi_world.training.rehearse import quick_config, rehearse
from magi_world.training.run import BEHIND, drop_short_shards, go_on
from magi_world.training.settings import WorldTrainConfig, read_settings

# Checking and reporting need all of what training needs.
for needed in ("matplotlib", "model2vec", "transformers", "h5py"):
    pytest.importorskip(needed)


def found(tmp_path: Path, *changes: tuple[str, str]) -> tuple[Preflight, str]:
    path = write_config(tmp_path / "bar.yaml", *changes)
    checked = preflight(path, tmp_path / "run", play_seconds=0.5)
    return checked, "\n".join(shown(f, checked.lines) for f in checked.findings)


def test_nothing_is_wrong_and_nothing_is_left_behind(tmp_path: Path) -> None:
    checked, _ = found(tmp_path)
    assert not [f for f in checked.findings if f.fatal]
    checked.done()
    assert checked.played is not None
    assert {row for _, chunk in checked.played.rows for row in [chunk.command]} == {0, 1, 2}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("toy:make()", "toy:make_nothing()", "line 8: 'toy:make_nothing' cannot be loaded"),
        ("policy: toy:Roll", "policy: toy:Silent", "says None, which is none of"),
        ("{stay: 0, go left: 1, go right: 2}", "{stay: 0, go left: 1, go right: 7}", "action 7"),
        ("key: hits, index: 0", "key: hats, index: 0", "has no entry 'hats'"),
        ("frame_key: screen", "frame_key: hits", "shows ndarray of shape (1,)"),
        ("age: 100000}", "age: 16}", "dynamics.chunks is 3; none of the"),
        ("starts: 2", "starts: 200", "line 5: starts is 200, of 2 chunks each"),
        ("{most: 100000, age: 100000}", "{most: 100000, ages: 3}", "unexpected keyword"),
        ("processes: 1", "processes: 1\n  from: minari:no/such-v0", "not on this machine"),
    ],
)
def test_what_is_fatal_is_told(tmp_path: Path, old: str, new: str, told: str) -> None:
    checked, text = found(tmp_path, (old, new))
    assert told in text
    assert any(f.fatal for f in checked.findings)
    with pytest.raises(Mistakes):
        checked.done()


def test_what_is_only_worth_knowing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    events = "    hit: {key: hits, index: 0}"
    never = events + "\n    fall: {key: hits, index: 0, change: fall}"
    checked, text = found(
        tmp_path,
        (events, never),
        ("events: [hit, death]\n  reward: {hit: 1.0}", "events: [hit, fall, death]"),
        ("max_chunks_per_episode: 80", "max_chunks_per_episode: 30"),
    )
    assert not any(f.fatal for f in checked.findings)
    for line in (
        "the event 'fall' never happened",
        "reward was 8 in every chunk played",
        "at most 30 chunks: dreams are compared",
        "OMP_NUM_THREADS is 1: torch will use no more of the 4 cores",
    ):
        assert line in text


def test_too_little_room_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("magi_world.training.preflight.free_memory", lambda: 10**9)
    _, text = found(tmp_path, ("chunks: 240", "chunks: 24000000000"))
    assert "GB are free. Lower record.chunks" in text
    assert "of memory" in text


ESTIMATE = Estimate(
    dict.fromkeys(STAGES, 100), {s: 0.1 * (i + 1) for i, s in enumerate(STAGES)}, 5, 7
)


def test_estimates_are_kept(tmp_path: Path) -> None:
    assert read_estimate(tmp_path) is None
    ESTIMATE.save(tmp_path)
    assert read_estimate(tmp_path) == ESTIMATE
    assert ESTIMATE.total == pytest.approx(360)
    assert ESTIMATE.after("classifier") == pytest.approx(80)
    assert ESTIMATE.after("toy") == 0
    assert ESTIMATE.table()[-1].split() == ["together", "6", "min"]
    assert [duration(s) for s in (3, 600, 19_200)] == ["3 s", "10 min", "5 h 20 min"]
    (tmp_path / "estimate.json").write_text('{"steps": 3}')
    assert read_estimate(tmp_path) is None


@pytest.fixture
def config(tmp_path: Path) -> WorldTrainConfig:
    return read_settings(write_config(tmp_path / "bar.yaml"))


def test_a_rehearsal_times_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checked, _ = found(tmp_path)
    assert checked.played is not None
    estimate = rehearse(checked.config, checked.played, torch.device("cpu"), steps=1)
    assert set(estimate.seconds) == set(STAGES)
    assert all(estimate.seconds[stage] > 0 for stage in STAGES)
    assert estimate.steps["dynamics"] == 4
    assert estimate.disk > 240 * 8 * 16 * 16 * 3

    def fails(*given: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("magi_world.training.rehearse.train_codec", fails)
    with pytest.raises(ValueError, match="codec cannot run: out of memory"):
        rehearse(checked.config, checked.played, torch.device("cpu"))


def test_a_quick_try_takes_the_time_it_has(config: WorldTrainConfig) -> None:
    long = replace(
        config,
        codec=replace(config.codec, loop=replace(config.codec.loop, steps=10**6)),
        dynamics=replace(config.dynamics, loop=replace(config.dynamics.loop, steps=10**6)),
        record=replace(config.record, chunks=800_000, chunks_per_shard=80_000),
    )
    for minutes in (1.0, 10.0):
        quick = quick_config(long, ESTIMATE, minutes)
        seconds = (
            quick.record.shards * quick.record.chunks_per_shard * ESTIMATE.seconds["record"]
            + quick.codec.loop.steps * ESTIMATE.seconds["codec"]
            + quick.dynamics.loop.steps * ESTIMATE.seconds["dynamics"]
        )
        assert 0.4 * 60 * minutes < seconds < 0.8 * 60 * minutes
        assert quick.dynamics.dit == long.dynamics.dit
        assert quick.codec.vae == long.codec.vae
    assert quick_config(config, ESTIMATE, 10).dynamics.loop.steps == config.dynamics.loop.steps


def test_a_longer_stage_goes_on_and_what_is_behind_it_does_not(
    config: WorldTrainConfig, tmp_path: Path
) -> None:
    def trained(stage: str, steps: int) -> None:
        torch.save({"step": steps}, tmp_path / f"{stage}.ckpt")

    for stage in ("codec", "dynamics", "distill", "decoder", "heads", "classifier"):
        trained(stage, 2)
    (tmp_path / BEHIND["codec"][0]).write_bytes(b"")
    trained("codec", 4)
    trained("dynamics", 4)
    assert go_on(config, tmp_path) == [], "as long as they should be"
    assert steps_done(tmp_path, "distill") == 2
    trained("dynamics", 3)
    assert go_on(config, tmp_path) == ["dynamics"]
    assert steps_done(tmp_path, "distill") == 0
    assert steps_done(tmp_path, "decoder") == 2
    trained("codec", 3)
    assert go_on(config, tmp_path) == ["codec"]
    assert sorted(p.stem for p in tmp_path.glob("*.ckpt")) == ["classifier", "codec", "dynamics"]
    assert go_on(config, tmp_path) == [], "stopped in the middle: nothing is behind it"


def test_short_shards_of_a_try_are_recorded_again(tmp_path: Path) -> None:
    for index, chunks in ((0, 30), (1, 6)):
        record_shard(record_config(chunks_per_shard=chunks), index, shard_path(tmp_path, index))
    assert drop_short_shards(record_config(), tmp_path) == 1
    assert [p.name for p in tmp_path.iterdir()] == [shard_path(tmp_path, 0).name]
    with safe_open(shard_path(tmp_path, 0), framework="np") as shard:
        assert shard.get_slice("command").get_shape() == [30]


def test_the_command_line_says_all_of_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_config(tmp_path / "bar.yaml", ("starts: 2", "starts: two"))
    line = ["train-world", str(path), "--run", str(tmp_path / "run"), "--device", "cpu", "--check"]
    assert cli.main(line) == 2
    assert "bar.yaml, line 5: starts is 'two'; it must be a whole number" in capsys.readouterr().err
    write_config(path, ("age: 100000}", "age: 16}"))
    assert cli.main(line) == 1
    assert "error: " in capsys.readouterr().err
    write_config(path)
    assert cli.main(line) == 0
    told = capsys.readouterr().out
    assert all(stage in told for stage in STAGES)
    assert "it can be trained" in told
    assert not (tmp_path / "run").exists()
    with pytest.raises(SystemExit):
        cli.main([*line, "--quick", "soon"])


def test_progress_is_one_line_with_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from magi_world.training import progress

    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    ESTIMATE.save(tmp_path)
    stage = progress.Progress("classifier", 100, 40, tmp_path)
    for _ in range(30):
        now[0] += 1.4  # twice what was estimated
        stage.advance(0.5)
    stage.probed({"held_out": 0.25})
    line = stage.line()
    assert "classifier 70/100; loss 0.5, held_out 0.25; 42 s of classifier left" in line
    assert "3 min of all" in line, "42 s, and twice the 80 s of the evaluation"
    assert len(capsys.readouterr().err.splitlines()) == 1, "one a minute"
    unknown = progress.Progress("toy", 10, 0, tmp_path)
    assert "of all" not in unknown.line()


def test_a_report_is_one_page(tmp_path: Path) -> None:
    from magi_world.training.report import write_report

    rows = [{"step": 10 * i, "time": 1, "loss": 1.0 / (i + 1), "grad": 2.0} for i in range(5)]
    (tmp_path / "dynamics.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 9')
    (tmp_path / "quality.json").write_text('{"a": {"b": 0.123456}, "c": [1, 2.5]}')
    (tmp_path / "dream.gif").write_bytes(b"GIF89a")
    (tmp_path / "dream.txt").write_text("a < b")
    page = write_report(tmp_path, "<name>", "what it is").read_text()
    for part in ("&lt;name&gt;", "<svg", "a / b", "0.1235", "1, 2.5", "step 40", "a &lt; b"):
        assert part in page, part
    assert 'src="http' not in page, "needs no server"
