"""The wheel and the source distribution hold what they should, and a build warns of nothing."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
IN_WHEEL = (
    "magi_world/py.typed",
    "magi_world/envs/env.py",
    "magi_world/agents/policies/dreamer/policy.json",
    "magi_world/demos/scripts/tour.yaml",
    *(f"magi_world/configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")),
    *(
        str(path.relative_to(ROOT))
        for path in (ROOT / "magi_world" / "worlds").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    ),
)
IN_SOURCE = (
    "README.md",
    "CHANGELOG.md",
    "docs/clients.md",
    "tests/tiny.py",
    "configs/courtyard.yaml",
    "examples/steer.py",
    "benchmarks/plain.py",
    ".ci/run",
)


def main() -> int:
    """Build both, print what is missing or was warned of; 1 if anything was."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "build", "--outdir", folder, str(ROOT)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-4000:])
            return 1
        told = done.stdout + done.stderr
        wrong += [line for line in told.splitlines() if "would be ignored" in line]
        (wheel,), (source,) = Path(folder).glob("*.whl"), Path(folder).glob("*.tar.gz")
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            wrong += [f"the wheel lacks {name}" for name in IN_WHEEL if name not in names]
            stray = {name.split("/")[0] for name in names if not name.startswith("magi_world")}
            wrong += [f"the wheel installs {name}" for name in sorted(stray)]
        with tarfile.open(source) as archive_:
            names = {name.partition("/")[2] for name in archive_.getnames()}
            wrong += [f"the source lacks {name}" for name in IN_SOURCE if name not in names]
        print(
            "\n".join(wrong) or f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB, {source.name}"
        )
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
