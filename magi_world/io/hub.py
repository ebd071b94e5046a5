"""Worlds and released weights on the Hugging Face hub. Nothing is fetched unless it is asked for.

A world is addressed as "hf:OWNER/NAME", with "@REVISION" behind it for a branch, tag or commit.
Only the files of a world package are fetched, and all of them must have the hashes that its
world.json states; nothing is unpickled or run.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from magi_world.io.package import RECORD, check_package, read_record

PREFIX = "hf:"
PACKAGE = (RECORD, "*.safetensors", "text/*.json", "text/*.safetensors")
RELEASED = "sand-ai/MAGI-1"
_ADDRESS = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubAddress:
    """repo: "owner/name".    revision: a branch, tag or commit; None is the newest."""

    repo: str
    revision: str | None = None

    @staticmethod
    def of(text: str) -> HubAddress:
        """From "owner/name", "owner/name@revision", with or without "hf:" in front.

        Raises:
            ValueError: it is none of them.
        """
        bare = text.removeprefix(PREFIX)
        if not _ADDRESS.fullmatch(bare) or ".." in bare:
            raise ValueError(
                f"{text!r:.80} is no address on the hub; it must be OWNER/NAME or "
                "OWNER/NAME@REVISION"
            )
        repo, _, revision = bare.partition("@")
        return HubAddress(repo, revision or None)


def fetch_world(address: str) -> Path:
    """The folder of a world from the hub, in the hub's own cache; fetched if it is not there.

    Raises:
        ValueError: no address, no such world, or files that are not those of its world.json.
        OSError: the hub cannot be reached.
        ImportError: without huggingface_hub.
    """
    place = HubAddress.of(address)
    folder = _snapshot(place, list(PACKAGE))
    if not (folder / RECORD).is_file():
        raise ValueError(f"{place.repo} holds no world: it has no {RECORD}")
    if problems := check_package(folder):
        raise ValueError(f"{place.repo} is not whole: {'; '.join(problems)}")
    return folder


def download_world(address: str, root: Path, overwrite: bool = False) -> Path:
    """Install a world from the hub below ``root``, under its own name, whole or not at all.

    Raises:
        FileExistsError: a world of that name is there.
        ValueError: as in `fetch_world`.
        OSError: the hub cannot be reached.
        ImportError: without huggingface_hub.
    """
    fetched = fetch_world(address)
    name = str(read_record(fetched).get("name", ""))
    if not re.fullmatch(r"\w[\w.-]{0,99}", name):
        raise ValueError(f"{address}: its name is {name!r:.60}; it must be a folder's name")
    target = root / name
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} is there already; overwrite it, or remove it")
    root.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=root))
    try:
        shutil.copytree(fetched, part / "new")  # the cache holds links, a world is files
        if target.exists():
            os.replace(target, part / "old")
        os.replace(part / "new", target)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return target


def released_patterns(name: str) -> list[str]:
    """The files of the release that a model needs, e.g. "magi-1-4.5b-distill-fp8".

    Raises:
        ValueError: there is no such model.
    """
    from magi_world.io.released import PRESETS

    if name not in PRESETS:
        raise ValueError(f"there is no model {name!r:.60}; it must be one of {', '.join(PRESETS)}")
    size, *kind = name.removeprefix("magi-1-").split("-")
    quantised = "fp8" in kind
    form = "distill" if "distill" in kind else "base"
    folder = f"ckpt/magi/{size.upper()}_{form}" + ("_quant" if quantised else "")
    return [f"{folder}/*", "ckpt/vae/*", "ckpt/t5/*", "LICENSE*", "README*"]


def download_released(name: str, folder: Path) -> Path:
    """The released weights of a model, in the layout that they were released in.

    A download that was stopped goes on with the same call.

    Raises:
        ValueError: there is no such model.
        OSError: the hub cannot be reached.
        ImportError: without huggingface_hub.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return _snapshot(HubAddress(RELEASED), released_patterns(name), folder)


def push_world(
    folder: Path, address: str, private: bool = False, message: str | None = None
) -> str:
    """Put a world package on the hub in one commit, with a card made from its world.json.

    The hub's own login is used (``hf auth login``, or the variable HF_TOKEN).

    Returns:
        Where it is now.

    Raises:
        ValueError: the package is not whole, or no address.
        OSError: the hub cannot be reached, or refuses.
    """
    place, record = HubAddress.of(address), read_record(folder)
    if problems := check_package(folder):
        raise ValueError(f"{folder} is not whole: {'; '.join(problems)}")
    hub = _hub()
    files = [RECORD, *record.get("files", {})]
    adds = [
        hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(folder / name))
        for name in files
    ]
    card = world_card(record, on_hub=place.repo).encode()
    adds.append(hub.CommitOperationAdd(path_in_repo="README.md", path_or_fileobj=card))
    _LOG.info("pushing %d files of %s to %s", len(adds), folder, place.repo)
    api = hub.HfApi()
    api.create_repo(place.repo, private=private, exist_ok=True)
    made = api.create_commit(
        place.repo, adds, commit_message=message or f"World {record['name']}",
        revision=place.revision,
    )  # fmt: skip
    return str(made.commit_url)


def _snapshot(place: HubAddress, patterns: list[str], folder: Path | None = None) -> Path:
    hub = _hub()
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    _LOG.info("fetching %s of %s", ", ".join(patterns), place.repo)
    try:
        fetched = hub.snapshot_download(
            place.repo, revision=place.revision, allow_patterns=patterns, local_dir=folder
        )
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"there is no {place.repo} on the hub, or it is private; hf auth login shows yourself"
        ) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"{place.repo} has no revision {place.revision!r}") from error
    return Path(fetched)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError("the hub needs pip install 'magi-world[hub]'") from error
    return huggingface_hub


def world_card(record: Mapping[str, Any], on_hub: str | None = None) -> str:
    """Markdown: what the world is, what it obeys, how good it is and where it comes from.

    Args:
        record: of `magi_world.io.package.read_record`.
        on_hub: "owner/name"; with the fields that the hub reads in front.
    """
    name = str(record["name"])
    height, width = record["frame_size"]
    address = f"hf:{on_hub}" if on_hub else name
    commands = record.get("commands", [])
    first = commands[0]["name"] if commands else "the scene continues"
    lines = [f"# {name}", "", str(record.get("description", "")).strip(), ""]
    lines += [
        f"{height}x{width} pixels, {record['fps']} frames a second, "
        f"{_frames(record)} frames a chunk, {len(commands)} commands.",
        "",
        "```python",
        "import magi_world",
        "",
        f'world = magi_world.load_world("{address}")',
        "world.reset(seed=0)",
        f"chunk = world.step({first!r})",
        "```",
        "",
        "## Commands",
        "",
        "| command | keys | other words for it |",
        "|---|---|---|",
    ]
    for command in commands:
        keys = ", ".join(command.get("keys", ()))
        lines.append(
            f"| {command['name']} | {keys} | {', '.join(command.get('phrases', ())[:4])} |"
        )
    sections = {"Quality": record.get("quality"), "Origin": record.get("provenance")}
    for title, values in sections.items():
        if values:
            lines += [
                "",
                f"## {title}",
                "",
                "| | |",
                "|---|--:|" if title == "Quality" else "|---|---|",
            ]
            lines += [f"| {key} | {value} |" for key, value in _flat(values)]
    lines += ["", "## Licence", "", str(record.get("licence", "")) or "Not stated.", ""]
    if on_hub is None:
        return "\n".join(lines)
    head = ["---", "library_name: magi-world", "pipeline_tag: text-to-video", "tags:"]
    return "\n".join([*head, "- world-model", "- magi-world", "---", "", *lines])


def _frames(record: Mapping[str, Any]) -> int:
    patch = record["vae"].get("patch_length", 4)
    return int(record["sampler"]["chunk_width"]) * int(patch)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested figures as rows of (path, value); lists of numbers are left out."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        label = f"{prefix}{str(key).replace('_', ' ')}"
        if isinstance(value, Mapping):
            rows += _flat(value, f"{label}: ")
        elif isinstance(value, float):
            rows.append((label, f"{value:.4g}"))
        elif isinstance(value, str | int | bool):
            rows.append((label, str(value)))
    return rows
