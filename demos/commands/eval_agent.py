"""`magi-world eval-agent AGENT --config CONFIG`: an agent judged in the real simulator."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from magi_world.demos.commands import options
from magi_world.demos.simulator_files import no_litter

if TYPE_CHECKING:
    from magi_world.agents import judge
    from magi_world.agents.judge import Results
    from magi_world.training.settings import WorldTrainConfig

# In the folder one is in, and in a clone of the repository.
CONFIGS = (Path("configs"), Path(__file__).parents[2] / "configs")
AGENTS = """agents:
  random                  every command equally likely
  "constant:turn left"    always this command
  dreamer                 the policy that comes along, trained in the dream of vizdoom-arena
  FOLDER, greedy:FOLDER   a policy that train-agent wrote: commands drawn with its probabilities,
                          or always the likeliest
  planner                 imagines futures in the world; planner:futures=4,chunks=2,world=NAME
  gather, collect         the policy that recorded the training data (it sees the simulator's
                          inside): always heading for what is worth something, or as it recorded
  package.module:thing    an agent, or a function of (observation, info), of your own
"""


def add(commands: options.Commands) -> None:
    """Declare it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "eval-agent",
        help="judge an agent in the real simulator",
        description="Play episodes of fixed seeds in the simulator that a world was trained on.\n"
        "With -o, Ctrl-C loses nothing; the same command goes on, and later agents join the table.",
        epilog=AGENTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("agents", metavar="AGENT", nargs="*", help="one or more, see below")
    parser.add_argument(
        "--config",
        metavar="WORLD",
        help="a world, or the YAML file that it was trained from; default: the world that the "
        "first agent was trained in, else the shipped one",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also: random, every constant command, collect, gather",
    )
    parser.add_argument(
        "--dream",
        metavar="WORLD",
        help="play in this world (a name or a folder) instead of the simulator, to compare the "
        "two; needs --max-chunks",
    )
    parser.add_argument("--episodes", type=options.count, default=100, metavar="N")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (0)")
    parser.add_argument("--max-chunks", type=options.count, metavar="N", help="cut episodes short")
    parser.add_argument("--processes", type=options.count, default=1, metavar="N")
    parser.add_argument(
        "--threads", type=options.count, default=1, metavar="N", help="of the CPU, per process (1)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE.json", type=options.file, help="keep the results there"
    )
    parser.add_argument(
        "--video",
        metavar="FILE.mp4",
        type=options.file,
        help="film the median episode; of several agents each, in FILE-AGENT.mp4",
    )
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Do it."""
    try:
        from magi_world.agents import judge
        from magi_world.agents.judge import Results, Setting, baseline_names
        from magi_world.threads import settle_threads
        from magi_world.training.settings import read_settings
    except ModuleNotFoundError as error:
        raise ImportError(f"judging needs pip install 'magi-world[doom]' ({error})") from error

    names = list(given.agents)
    config = read_settings(find_config(given.config or _home(names)))
    if given.baselines:
        common = baseline_names(list(config.commands), given.dream is not None)
        names += [name for name in common if name not in names]
    if not names:
        raise ValueError("no AGENT was named; name one, or ask for --baselines")
    if given.video is not None and given.video.suffix.lower() != ".mp4":
        raise ValueError(f"--video is {given.video}; it must end in .mp4")
    settle_threads(given.threads)
    wanted = judge.JudgeConfig(given.episodes, given.seed, given.processes)
    make_env, dream = _place(given, config)
    results = Results(Setting.of(config, given.max_chunks, dream), given.output)
    with no_litter(Path.cwd()), results.alone():
        for name in names:
            _judge(name, make_env, wanted, results, quiet=given.json)
        for name in names if given.video is not None else ():
            path = given.video
            if len(names) > 1:
                path = path.with_stem(f"{path.stem}-{_slug(name)}")
            _film(name, make_env, results, path)
    _report(given, results)
    return 0


def find_config(name: str) -> Path:
    """The configuration of a world, by its file or by the world's name.

    Raises:
        FileNotFoundError: there is none; the message says where was looked.
    """
    path = options.file(name)
    if path.is_file():
        return path
    places = [folder / f"{Path(name).name}.yaml" for folder in CONFIGS]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, (path, *places)))
    raise FileNotFoundError(
        f"--config is {name!r}, and there is no such file; it must be a world with a configuration "
        f"or a YAML file like configs/vizdoom-arena.yaml (looked for {looked})"
    )


def _home(names: list[str]) -> str:
    """The world that the first trained policy knows, else the default one."""
    from magi_world.agents.loading import policy_folder
    from magi_world.agents.ppo.policy import policy_record

    for name in names:
        if (folder := policy_folder(name)) is not None and (world := policy_record(folder).world):
            return world
    return options.default_world()


def _slug(name: str) -> str:
    """An agent's name as part of a file's name."""
    return "".join(c if c.isalnum() else "-" for c in name).strip("-")


def _place(given: argparse.Namespace, config: WorldTrainConfig) -> tuple[judge.EnvMaker, str]:
    """What makes the environment, and the fingerprint of the world if it is a dream."""
    from magi_world.envs.env import MagiWorldEnv
    from magi_world.envs.real import RealWorldEnv
    from magi_world.envs.rewards import LearnedReward
    from magi_world.loading import LoadOptions, load_world

    if given.dream is None:
        return partial(RealWorldEnv, config, given.max_chunks), ""
    if given.max_chunks is None:
        raise ValueError("--dream needs --max-chunks: a dream has no limit of its own")
    # An end is drawn with its probability, as it would come in the simulator.
    reward = LearnedReward(sample_end=True)
    make = partial(
        MagiWorldEnv,
        world=given.dream,
        reward=reward,
        max_chunks=given.max_chunks,
        load=LoadOptions(device="cpu"),
    )
    return make, load_world(given.dream, device="cpu").spec.fingerprint


def _judge(
    name: str,
    make_env: judge.EnvMaker,
    wanted: judge.JudgeConfig,
    results: Results,
    quiet: bool,
) -> None:
    from tqdm import tqdm

    from magi_world.agents import judge
    from magi_world.agents.judge import agent_digest

    known = results.open(name, agent_digest(name))
    ready = sum(episode.seed in wanted.seeds for episode in known)
    bar = tqdm(
        total=wanted.episodes,
        initial=ready,
        desc=name,
        unit="episode",
        file=sys.stderr,
        disable=quiet,
    )

    def done(episode: judge.Episode) -> None:
        results.add(name, episode)
        bar.update()
        mean = judge.figures(results.episodes(name))["reward"].mean
        bar.set_postfix_str(f"reward {mean:.2f}")

    with bar:
        judge.judge_agent(judge.NamedAgent(name), make_env, wanted, known, done)


def _film(name: str, make_env: judge.EnvMaker, results: Results, path: Path) -> None:
    from contextlib import closing

    from magi_world.agents import judge

    median = judge.median_episode(results.episodes(name))
    with closing(make_env()) as env:
        filmed = judge.film_episode(judge.NamedAgent(name), env, median.seed, path)
    print(f"{path}: {name}, seed {filmed.seed}, reward {filmed.reward:g}", file=sys.stderr)
    if (filmed.reward, filmed.chunks) != (median.reward, median.chunks):
        print(
            f"the judged episode of that seed had reward {median.reward:g}: this agent does not "
            "do the same twice",
            file=sys.stderr,
        )


def _report(given: argparse.Namespace, results: Results) -> None:
    from magi_world.agents.judge import as_markdown, as_text, table_rows

    if given.json:
        options.print_json(results.record())
        return
    rows = table_rows({name: results.episodes(name) for name in results.agents})
    print(as_markdown(rows) if given.markdown else as_text(rows))
    if given.output is not None:
        print(f"  {given.output}", file=sys.stderr)
