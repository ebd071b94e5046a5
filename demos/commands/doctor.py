"""`magi-world doctor`: what works on this machine."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from magi_world.demos.commands import options

_MARKS = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor",
        help="check this machine, the worlds, and downloaded weights",
        description="Check Python, torch, GPU, attention, video codecs, display and worlds, and "
        "with --weights a folder of the released MAGI-1 weights. Exit status 1 if there is a "
        "problem.",
    )
    parser.add_argument("--weights", metavar="DIR", type=options.file)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    from magi_world.demos.health import findings

    found = []
    for finding in findings(given.weights):
        found.append(finding)
        if given.json:
            continue
        first, *rest = finding.text.splitlines()
        print(f"{_MARKS[finding.verdict]} {finding.name}: {first}", flush=True)
        for line in (*rest, *filter(None, [finding.advice])):
            print(f"        {line}")
    problems = sum(finding.verdict == "problem" for finding in found)
    if given.json:
        options.print_json({"problems": problems, "findings": [asdict(f) for f in found]})
    elif problems:
        print(f"{problems} problem{'s' if problems > 1 else ''}")
    else:
        print("all is well")
    return 1 if problems else 0
