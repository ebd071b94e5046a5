"""Starting a run from a finished world instead of from nothing: more training, or another game.

    magi-world train-world CONFIG --from vizdoom-arena

The package's text table and autoencoder are taken as they are, so that their stages have nothing
to do, and the transformer starts from the package's weights (their optimisers' state is not part
of a package, so the learning rate warms up anew).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from magi_world.io.package import read_package
from magi_world.io.weights import save_tensors
from magi_world.loading import find_package
from magi_world.training.files import CODEC, TEXT, TRANSFORMER
from magi_world.training.settings import WorldTrainConfig


def inherit(package: str | Path, config: WorldTrainConfig, folder: Path) -> None:
    """Put the parts of ``package`` where the stages of the run in ``folder`` look for them.

    A run that has checkpoints keeps them: it goes on with what it has.

    Raises:
        ValueError: no such package, or its parts have other sizes than ``config`` asks for.
    """
    if list(folder.glob("*.ckpt")) or (folder / TRANSFORMER).exists():
        return
    source = find_package(package)
    parts = read_package(source)
    for name, theirs, ours in (
        ("codec.vae", parts.config.vae, config.codec.vae),
        ("dynamics.dit", parts.config.dit, config.dynamics.dit),
    ):
        if theirs != ours:
            raise ValueError(f"{name} is {ours}; to start from {source.name} it must be {theirs}")
    shutil.copytree(source / TEXT, folder / TEXT, dirs_exist_ok=True)
    save_tensors(folder / CODEC, parts.vae.state_dict())
    save_tensors(folder / TRANSFORMER, parts.dit.state_dict())
