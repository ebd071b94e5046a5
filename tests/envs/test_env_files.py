"""Snapshot files of environments: nothing in them is run or believed, and none is half written."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from magi_world.envs import MagiWorldEnv
from magi_world.envs.state import EnvSnapshot, load_snapshot, rng_from, rng_state
from magi_world.io.safetensors_io import load_tensors, read_metadata, save_tensors
from tests.envs.worlds import fast_world, together


def kept(path: Path) -> MagiWorldEnv:
    env = MagiWorldEnv(fast_world())
    env.reset(seed=3)
    env.step("turn left")
    env.snapshot().save(path)
    return env


def changed(path: Path, **changes: Any) -> Path:
    """The file with fields of its record changed, or with ``env_``... tensors replaced."""
    tensors = {n: t.clone() for n, t in load_tensors(path).items()}
    metadata = read_metadata(path)
    record = json.loads(metadata["env"])
    for name, value in changes.items():
        if name.startswith("env_"):
            tensors[name.replace("_", ".", 1)] = value
        else:
            record[name] = value
    save_tensors(path, tensors, {**metadata, "env": json.dumps(record)})
    return path


HOSTILE = ["test", "seterr", "Generator", "random.PCG64", "__import__", "PCG64 ", "", 3, None, []]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_generators_are_looked_up_in_a_fixed_list(name: object, tmp_path: Path) -> None:
    state = {**rng_state(np.random.default_rng(0)), "bit_generator": name}
    with pytest.raises(ValueError, match=r"bit_generator is .* must be one of PCG64"):
        rng_from(state)
    kept(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="bit_generator is"):
        load_snapshot(changed(tmp_path / "a.safetensors", rngs=[state]))


def test_a_strangers_tests_are_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # numpy.random.test() imports the conftest.py of the current folder.
    (tmp_path / "conftest.py").write_text("open('ran', 'w').close()\n")
    monkeypatch.chdir(tmp_path)
    kept(tmp_path / "a.safetensors")
    before = set(sys.modules)
    with pytest.raises(ValueError, match="bit_generator is 'test'"):
        load_snapshot(changed(tmp_path / "a.safetensors", rngs=[{"bit_generator": "test"}]))
    assert not (tmp_path / "ran").exists()
    assert not [name for name in set(sys.modules) - before if "conftest" in name]


@pytest.mark.parametrize("name", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_numpys_own_generators_go_on(name: str) -> None:
    rng = np.random.Generator(getattr(np.random, name)(7))
    twin = rng_from(rng_state(rng))
    assert rng.integers(10**9, size=5).tolist() == twin.integers(10**9, size=5).tolist()


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "1"},
        {"version": 2},
        {"index": []},
        {"index": [-1]},
        {"index": ["1"]},
        {"index": [1, 2]},
        {"prompts": [3]},
        {"prompts": None},
        {"lands": [1.5]},
        {"skip": {}},
        {"first": ["0"]},
        {"ended": ["false"]},
        {"ended": [0]},
        {"rngs": []},
        {"rngs": [None]},
        {"rngs": [{}]},
        {"rngs": [{"bit_generator": "PCG64", "state": {}}]},
        {"rngs": [{"bit_generator": "PCG64", "state": {"state": "x", "inc": 1}}]},
        {"env_latents": torch.zeros(1)},
        {"env_latents": torch.full((1, 8, 2, 4, 6), float("nan"))},
        {"env_pixels": torch.zeros(1, 8, 32, 48, 3)},
        {"env_pixels": torch.zeros(3, dtype=torch.uint8)},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_records_are_not_believed(changes: dict[str, Any], tmp_path: Path) -> None:
    kept(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a\.safetensors|state of PCG64|bit_generator"):
        EnvSnapshot.load(changed(tmp_path / "a.safetensors", **changes))


def test_a_save_that_fails_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    env = kept(path)
    before = path.read_bytes()
    env.step("turn right")
    snapshot = replace(env.snapshot(), rngs=({"never": {1, 2}},))  # a set is no JSON
    with pytest.raises(TypeError):
        snapshot.save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_saving_writes_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In two steps a kill between them would leave the world without its environment.
    replaced: list[object] = []
    replace_file = __import__("os").replace
    monkeypatch.setattr("os.replace", lambda a, b: (replaced.append(b), replace_file(a, b))[1])
    kept(tmp_path / "a.safetensors")
    assert replaced == [tmp_path / "a.safetensors"]


def test_a_refused_reset_leaves_the_generators_alone() -> None:
    foreign = replace(kept_state(), fingerprint="other")
    envs, twin = together(), together()
    for vector in (envs, twin):
        vector.reset(seed=0)
    with pytest.raises(ValueError, match="another world"):
        envs.reset(seed=9, options={"snapshot": foreign})
    assert envs.np_random_seed == twin.np_random_seed
    np.testing.assert_array_equal(envs.reset()[0], twin.reset()[0])
    env, alone = MagiWorldEnv(fast_world()), MagiWorldEnv(fast_world())
    for single in (env, alone):
        single.reset(seed=0)
    with pytest.raises(ValueError, match="another world"):
        env.reset(seed=9, options={"snapshot": foreign})
    assert env.np_random_seed == alone.np_random_seed
    np.testing.assert_array_equal(env.reset()[0], alone.reset()[0])


def kept_state() -> Any:
    world = fast_world()
    world.reset(seed=1)
    world.step("turn left")
    return world.snapshot()
