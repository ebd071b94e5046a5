"""Pages that are made while the site is built: the README in front, API pages, cards of worlds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from magi_world.io.hub import world_card
from magi_world.io.package import read_record
from magi_world.loading import world_folders

API = {
    "world": [
        "magi_world.loading",
        "magi_world.world.world",
        "magi_world.world.chunk",
        "magi_world.world.spec",
    ],
    "environments": ["magi_world.envs.env", "magi_world.envs.vector", "magi_world.envs.wrappers"],
    "agents": ["magi_world.agents.basic", "magi_world.agents.loading"],
    "hub": ["magi_world.io.hub"],
}


def on_files(files: Files, config: Any) -> Files:
    """Add them."""
    root = Path(config["config_file_path"]).parent

    def page(uri: str, text: str) -> None:
        files.append(File.generated(config, uri, content=text))

    readme = (root / "README.md").read_text("utf-8")
    # Links to the pages are from here now; what lies beside them in the repository is not here.
    readme = re.sub(r"\]\(docs/", "](", readme)
    page(
        "index.md",
        re.sub(r"\[([^\]]+)\]\((?!https?:|#|[\w./-]+\.(?:md|gif|png))[^)]+\)", r"\1", readme),
    )
    for name, modules in API.items():
        body = "\n\n".join(f"::: {module}" for module in modules)
        page(f"api/{name}.md", f"# {name.capitalize()}\n\n{body}\n")
    for name, folder in world_folders().items():
        page(f"worlds/cards/{name}.md", world_card(read_record(folder)))
    return files
