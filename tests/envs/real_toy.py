"""The toy simulator of the trainer's tests, as a world's configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from magi_world.simulator import RecordConfig
from magi_world.training.phrases import CommandConfig
from magi_world.training.settings import WorldTrainConfig, read_settings
from tests.training.toy import COMMANDS, record_config

SHIPPED = Path(__file__).parents[2] / "configs" / "courtyard.yaml"


def toy_record(**changes: object) -> RecordConfig:
    """The bar, its policy found from the repository's root."""
    places = {"env": "tests.training.toy:make()", "policy": "tests.training.toy:Roll"}
    return record_config(**{**places, **changes})


def toy_config(**changes: object) -> WorldTrainConfig:
    """Hits are worth 1, the end -2; six hits end an episode, 40 steps cut it short."""
    shipped = read_settings(SHIPPED)
    values: dict[str, object] = {
        "name": "bar",
        "record": toy_record(),
        "commands": {c: CommandConfig((f"please {c}",), (f"now {c}",)) for c in COMMANDS},
        "heads": replace(
            shipped.heads, events=("hit", "death"), reward={"hit": 1.0, "death": -2.0}
        ),
        "default_command": "stay",
        "starts_before": "",
    }
    return replace(shipped, **{**values, **changes})  # type: ignore[arg-type]
