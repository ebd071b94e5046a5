"""Datasets for offline learning, as Minari keeps them: written whole or not at all.

Needs ``pip install 'magi-world[minari]'``.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gymnasium.spaces import Space, Text

from magi_world.config import require
from magi_world.world.spec import MAX_CHARACTERS, PRINTABLE

if TYPE_CHECKING:
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_dataset import MinariDataset


@dataclass(frozen=True)
class DatasetConfig:
    """What a dataset is of.

    algorithm: what chose the actions.    facts: further entries of the metadata, fit for JSON.
    """

    name: str
    observation_space: Space[Any]
    action_space: Space[Any]
    algorithm: str = ""
    description: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def text_space(commands: Iterable[str]) -> Text:
    """The environment's action space for ``commands``.

    Raises:
        ValueError: a command that is not in it.
    """
    for command in set(commands):
        fits = set(command) <= set(PRINTABLE) and 0 < len(command) <= MAX_CHARACTERS
        require(fits, f"the command {command!r} is not printable ASCII, or too long, for a dataset")
    return Text(MAX_CHARACTERS, charset=PRINTABLE)


def check_name(name: str) -> None:
    """Whether a dataset of this name can be written.

    Raises:
        ImportError: Minari is not installed.
        ValueError: the name has another form than Minari's, or is taken.
    """
    try:
        import h5py  # noqa: F401  (Minari's storage, which `import minari` does not ask for)
        import minari
        from minari.dataset.minari_dataset import DATASET_ID_RE
    except ImportError as error:
        raise ImportError(
            f"Minari is not installed: pip install 'magi-world[minari]' ({error})"
        ) from error
    form = DATASET_ID_RE.fullmatch(name)
    require(
        form is not None and form["version"] is not None,
        f"the dataset's name is {name!r}; it must be like arena/human-v0",
    )
    require(name not in minari.list_local_datasets(), f"the dataset {name} exists; name another")


def write_dataset(config: DatasetConfig, episodes: Iterable[EpisodeBuffer]) -> MinariDataset:
    """Write the episodes as they come; an iterator keeps only one of them in memory.

    They go into a hidden folder that gets its name when it is complete. Frames are kept lossless.

    Raises:
        ImportError, ValueError: as `check_name`.
    """
    check_name(config.name)
    import minari
    from minari.dataset.minari_storage import MinariStorage
    from minari.namespace import create_namespace, list_local_namespaces
    from minari.storage import get_dataset_path

    folder = get_dataset_path(config.name)
    namespace = config.name.rpartition("/")[0]
    if namespace and namespace not in list_local_namespaces():
        create_namespace(namespace)
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed run left
    unfinished.mkdir(parents=True)
    try:
        storage = MinariStorage.new(
            unfinished / "data",
            observation_space=config.observation_space,
            action_space=config.action_space,
            jpeg_encoding=False,
        )
        storage.update_metadata(
            {
                **config.facts,
                "dataset_id": config.name,
                "algorithm_name": config.algorithm,
                "description": config.description,
                "minari_version": minari.__version__,
            }
        )
        storage.update_episodes(episodes)
        os.replace(unfinished, folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return minari.load_dataset(config.name)
