"""Every file in a folder of reference cases is one test.

    pytest tests/test_reference.py --golden DIR --device cuda

A case's kind is in its metadata. Files named weights_* are the models that other cases load; they
are tested by loading them strictly. An unknown kind fails, and so does an empty folder.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.reference.caption_cleaning import check_caption_cleaning
from tests.reference.forward import check_forward
from tests.reference.parts import check_fp8_linear, check_rope
from tests.reference.sampler import check_sampler
from tests.reference.tables import check_tables
from tests.reference.text import check_text
from tests.reference.vae import check_vae

FLOAT32 = 1e-4
TOLERANCES = {"forward_bf16": 2e-2, "fp8_linear": 1e-3, "forward_fp8": 5e-2}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case_file" in metafunc.fixturenames:
        folder: Path = metafunc.config.getoption("--golden")
        files = sorted(p for p in folder.glob("*") if p.suffix in (".safetensors", ".json"))
        metafunc.parametrize("case_file", files, ids=[p.name for p in files])


def test_folder_has_cases(request: pytest.FixtureRequest) -> None:
    folder: Path = request.config.getoption("--golden")
    assert folder.is_dir(), f"{folder} is not a folder"
    assert any(folder.glob("*.safetensors")), f"no reference case in {folder}"


def test_reference(case_file: Path, request: pytest.FixtureRequest) -> None:
    device = request.config.getoption("--device")
    if case_file.suffix == ".json":
        pytest.importorskip("ftfy")
        pytest.importorskip("bs4")
        check_caption_cleaning(json.loads(case_file.read_text()))
        return
    with safe_open(case_file, "pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118
    if case_file.name.startswith("weights_") and "case" not in metadata:
        assert all(torch.isfinite(v.float()).all() for v in tensors.values())
        return
    case = json.loads(metadata["case"])
    with torch.device(device):
        errors = check(case, tensors, case_file.parent)
    assert errors, f"{case_file.name} holds nothing to compare"
    limit = tolerance(case)
    wrong = {name: error for name, error in errors.items() if not error <= limit}
    assert not wrong, f"over {limit}: {wrong}"


def check(case: dict, tensors: dict[str, torch.Tensor], folder: Path) -> dict[str, float]:
    """Relative error of everything that a case expects."""
    kind = case["kind"]
    if kind == "forward":
        return check_forward(case, tensors, folder)
    if kind == "sampler":
        return check_sampler(case, tensors, folder)
    checks = {
        "vae": check_vae,
        "text": check_text,
        "tables": check_tables,
        "rope": check_rope,
        "fp8_linear": check_fp8_linear,
    }
    if kind not in checks:
        raise AssertionError(f"unknown kind of case: {kind!r}")
    return checks[kind](case, tensors)


def tolerance(case: dict) -> float:
    """The error that the reference page allows for this kind and precision."""
    if case["kind"] == "fp8_linear":
        return TOLERANCES["fp8_linear"]
    config = case.get("config")
    if config is None:
        return FLOAT32
    if config["engine_config"]["fp8_quant"]:
        return TOLERANCES["forward_fp8"]
    bf16 = config["model_config"]["params_dtype"] == "torch.bfloat16"
    return TOLERANCES["forward_bf16"] if bf16 else FLOAT32
