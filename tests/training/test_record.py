"""Recording: chunks that follow the simulator, shards that depend on their seed alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from toy import COMMANDS, record_config

from magi_world.simulator import EventConfig, as_action, load_object, shrink
from magi_world.training.collect import play, record, record_shard
from magi_world.training.data import shard_names, shard_path


def test_frames_follow_the_command(recording: Path) -> None:
    shards = [load_file(shard_path(recording, i)) for i in range(3)]
    shard = {k: np.concatenate([s[k] for s in shards]) for k in shards[0]}
    bar = shard["frames"][:, :, 0, :, 0].argmax(-1).astype(int)  # where the bar is
    steps = np.diff(bar, axis=1)
    whole = shard["end"] == 0
    for command, way in enumerate((0, -1, 1)):
        seen = steps[whole & (shard["command"] == command)]
        assert len(seen)
        assert set(np.unique(seen)) <= {0, way}
        assert way == 0 or (seen == way).any()


def test_events_reward_and_end(recording: Path) -> None:
    shard = load_file(shard_path(recording, 0))
    assert shard["reward"][shard["end"] == 0].tolist() == [8.0] * int((shard["end"] == 0).sum())
    starts = np.flatnonzero(np.diff(shard["episode"], prepend=-1))
    assert len(starts) > 1
    # Every episode ends with its last chunk, by six hits (1) or by age (2); only the shard's very
    # last chunk may be cut off in the middle of an episode.
    assert set(shard["end"][starts[1:] - 1]) <= {1, 2}
    assert (np.delete(shard["end"], starts[1:] - 1)[:-1] == 0).all()
    at_side = shard["frames"][:, -1, 0, :, 0].argmax(-1) % 15 == 0
    assert (at_side | (shard["events"][:, 0] == 0) | (shard["end"] > 0)).all()


def test_a_shard_is_its_seed(recording: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.safetensors"
    assert record_shard(record_config(), 1, again) == 30
    one, two = load_file(shard_path(recording, 1)), load_file(again)
    assert all(np.array_equal(one[k], two[k]) for k in one)
    record_shard(record_config(seed=5), 1, again)
    assert not np.array_equal(one["frames"], load_file(again)["frames"])


def test_a_shard_names_its_columns(recording: Path, tmp_path: Path) -> None:
    config = record_config()
    names = shard_names(shard_path(recording, 0))
    assert names == {"commands": list(config.actions), "events": list(config.events)}
    # One of before says its commands only.
    save_file({"end": np.zeros(1)}, tmp_path / "old", {"commands": "go|stay"})
    assert shard_names(tmp_path / "old") == {"commands": ["go", "stay"], "events": []}


def test_recording_resumes(recording: Path, tmp_path: Path) -> None:
    for i in (0, 2):
        shard_path(tmp_path, i).write_bytes(shard_path(recording, i).read_bytes())
    kept = shard_path(tmp_path, 0).stat().st_mtime_ns
    record(record_config(), tmp_path)
    assert shard_path(tmp_path, 1).read_bytes() == shard_path(recording, 1).read_bytes()
    assert shard_path(tmp_path, 0).stat().st_mtime_ns == kept


def test_a_time_limit_is_no_end_even_if_the_simulator_calls_it_one(
    recording: Path, tmp_path: Path
) -> None:
    record(record_config(env="toy:make_limited()"), tmp_path)
    limited, plain = (load_file(shard_path(folder, 0)) for folder in (tmp_path, recording))
    assert (plain["end"] == 2).any()
    assert np.array_equal(limited["end"], plain["end"])


def test_render_is_used_without_a_frame_key(recording: Path, tmp_path: Path) -> None:
    path = tmp_path / "shard.safetensors"
    record_shard(record_config(frame_key=""), 1, path)
    expected = load_file(shard_path(recording, 1))["frames"]
    assert np.array_equal(load_file(path)["frames"], expected)


def alive(pid: int) -> bool:
    """Whether there is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_a_stopped_recording(tmp_path: Path, number: int) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from toy import record_config\n"
        "from magi_world.training.collect import record\n"
        "if __name__ == '__main__':\n"
        "    record(record_config(chunks=3_000_000, chunks_per_shard=1_000_000, processes=2), "
        "sys.argv[1])\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    line = [sys.executable, str(script), str(tmp_path / "data"), str(Path(__file__).parent)]
    parent = subprocess.Popen(line, stderr=subprocess.PIPE)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")

    def until(met: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 40
        while not met():
            assert time.monotonic() < deadline, what
            time.sleep(0.1)

    until(lambda: len(children.read_text().split()) >= 3, "the workers start")
    time.sleep(1.5)
    workers = [int(pid) for pid in children.read_text().split()]
    parent.send_signal(number)
    _, told = parent.communicate(timeout=40)
    until(lambda: not any(alive(pid) for pid in workers), "a worker is left")
    assert parent.returncode != 0
    if number != signal.SIGKILL:
        assert b"record stopped" in told
    assert not list((tmp_path / "data").glob("*"))


def test_what_a_worker_finds_wrong_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no_such"):
        record(record_config(policy="toy:no_such"), tmp_path)


def test_shrink_averages_areas() -> None:
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:4, :6] = 200
    picture[0, 0] = 0
    small = shrink(picture, (2, 2))
    assert small[0, 0, 0] == round(200 * 23 / 24)
    assert small[1, 1, 0] == 0
    assert shrink(picture, (8, 12)) is picture
    assert shrink(picture, (3, 5)).shape == (3, 5, 3)


def test_actions_of_every_space() -> None:
    space = gym.spaces.Dict(
        {"binary": gym.spaces.MultiBinary(2), "continuous": gym.spaces.Box(-9, 9, (1,))}
    )
    action = as_action(space, {"binary": [1, 0], "continuous": [2.5]})
    assert action["continuous"].dtype == np.float32
    assert as_action(gym.spaces.Discrete(3), 2) == 2
    with pytest.raises(ValueError, match=r"\[1, 0, 1\].*MultiBinary"):
        as_action(gym.spaces.MultiBinary(2), [1, 0, 1])
    with pytest.raises(ValueError, match=r"binary.*continuous"):
        as_action(space, [1, 0])


def test_bad_configurations_are_named() -> None:
    with pytest.raises(ValueError, match="processes is 0"):
        record_config(processes=0)
    with pytest.raises(ValueError, match="held_out_shards"):
        record_config(held_out_shards=3)
    with pytest.raises(ValueError, match="change is 'up'"):
        EventConfig("hits", 0, "up")
    with pytest.raises(ValueError, match="no_such"):
        load_object("toy:no_such")
    with pytest.raises(ValueError, match="module:name"):
        load_object("toy")


def test_playing_holds_every_command_and_at_least_one_episode() -> None:
    played = play(record_config(), seconds=0.0)
    held = [chunk.command for episode, chunk in played.rows if episode < 0]
    assert held == list(range(len(COMMANDS)))
    assert len(played.lengths) == 1
    assert played.lengths[0] == len(played.rows) - len(held) > 0
    assert played.seconds > 0
