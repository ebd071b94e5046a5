"""`magi-world train-agent` and `eval-agent`: who plays by themselves."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from magi_world.agents.config import JudgeConfig
from magi_world.agents.ppo.config import TrainAgentConfig
from magi_world.demos.commands.options import (
    DEVICE,
    Count,
    JsonOption,
    Opt,
    OptCount,
    OptFile,
    Output,
    Switch,
    Words,
    default_world,
    file,
    known_device,
    option,
    print_json,
    reads,
)

if TYPE_CHECKING:
    from magi_world.agents import judge
    from magi_world.agents.judge import Results
    from magi_world.training.settings import WorldTrainConfig

LITTER = ("_vizdoom", "_vizdoom.ini")  # ViZDoom's, whatever game it plays


@contextmanager
def no_litter(folder: Path) -> Iterator[None]:
    """Afterwards the folder has no such files, unless it had them before."""
    new = [folder / name for name in LITTER if not (folder / name).exists()]
    try:
        yield
    finally:
        for path in new:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


_D = TrainAgentConfig  # its defaults stand in the help


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@dataclass(frozen=True, kw_only=True)
class TrainAgent(JsonOption):
    """Train a policy in a world.

    With PPO, and the rewards and ends that the world's heads predict. Ctrl-C saves everything; the
    same command goes on from there, and for a folder that exists, what is not typed is as it was.
    """

    folder: Annotated[OptFile, arg(name="run")] = option(
        "default: runs/agent-WORLD, or runs/agent-CONFIG-real"
    )
    world: Opt[str] = option("a name or the folder of a world; default: the shipped one")
    real: Opt[str] = option("train in the simulator of this configuration instead")
    starts: Opt[str] = option("begin episodes from clips of this folder of a recording as well")
    num_starts: OptCount = option(f"how many clips ({_D.num_starts})")
    starts_before: Opt[str] = option("only clips that this event of the recording soon follows")
    num_envs: OptCount = option(f"worlds in the batch ({_D.num_envs})")
    horizon: OptCount = option(f"chunks of an episode ({_D.horizon})")
    noise_scale: Opt[float] = option(
        f"of the world's noise; above 1 it takes more chances ({_D.noise_scale})"
    )
    denoise_steps: OptCount = option("of the world; default: its own")
    dtype: Opt[str] = option("float32 or bfloat16, of the world; default: its own")
    uncertainty: Opt[float] = option(
        f"weight of the penalty for uncertain rewards ({_D.uncertainty})"
    )
    commands: Annotated[Opt[tuple[str, ...]], reads(_names, "A,B,...")] = option(
        "A,B,...: what it may say; default: all that the world obeys"
    )
    sample_end: Opt[bool] = option(
        "episodes end with the predicted probability, or, with --no-, at one half "
        f"({_D.sample_end})"
    )
    steps: OptCount = option(f"chunks in all, over all worlds ({_D.steps})")
    rollout: OptCount = option(f"chunks of each world between two updates ({_D.rollout})")
    epochs: OptCount = option(f"passes over them ({_D.epochs})")
    batch: OptCount = option(f"chunks in a minibatch ({_D.batch})")
    learning_rate: Opt[float] = option(f"at first; falls to a tenth ({_D.learning_rate})")
    gamma: Opt[float] = option(f"discount of a chunk ({_D.gamma})")
    gae: Opt[float] = option(f"lambda of the advantage estimates ({_D.gae})")
    clip: Opt[float] = option(f"of the probability ratio ({_D.clip})")
    entropy: Opt[float] = option(f"weight of the entropy ({_D.entropy})")
    value: Opt[float] = option(f"weight of the value's loss ({_D.value})")
    max_norm: Opt[float] = option(f"of the gradient ({_D.max_norm})")
    frames: OptCount = option(f"frames that the policy sees ({_D.frames})")
    every: OptCount = option(f"how far apart they are ({_D.every})")
    features: OptCount = option(f"width of its last layer ({_D.features})")
    seed: Opt[int] = option(f"of everything ({_D.seed})")
    checkpoints: OptCount = option(f"policies kept on the way ({_D.checkpoints})")
    save_seconds: Opt[float] = option(
        f"lost at most when the process is killed ({_D.save_seconds})"
    )
    engine: Opt[str] = option(
        f"sb3, or rllib: Ray's, over many processes and machines ({_D.engine})"
    )
    env_runners: OptCount = option(
        f"rllib: processes with --num-envs worlds each ({_D.env_runners})"
    )
    gpus_per_runner: Opt[float] = option(
        f"rllib: a card, or a share of one, for each ({_D.gpus_per_runner})"
    )
    device: Opt[str] = option(DEVICE)
    threads: OptCount = option("of the CPU")
    judged: OptFile = option(
        "draw the checkpoints' returns against what eval-agent -o FILE.json found"
    )
    dreamt: OptFile = option(
        "for that, what eval-agent found in the dream; default: the training's own returns"
    )

    def run(self) -> int:
        from magi_world.interrupts import Stopped
        from magi_world.threads import settle_threads

        settle_threads(self.threads)
        known_device(self.device)
        config, folder = self.read()
        try:
            with no_litter(Path.cwd()):
                _engine(config.engine)(
                    config, folder, lambda line: print(line, file=sys.stderr, flush=True)
                )
        except Stopped as error:
            print(error, file=sys.stderr)
            return 130
        self._report(folder, self._draw(folder))
        return 0

    def read(self) -> tuple[TrainAgentConfig, Path]:
        """Configuration and folder: what was typed, else what the folder has, else defaults.
        Raises ValueError: an option that cannot be.
        """
        from magi_world.agents.jobs import read_config

        names = [f.name for f in fields(TrainAgentConfig)]
        typed = {n: value for n in names if (value := getattr(self, n)) is not None}
        folder = self.folder or Path("runs") / (
            f"agent-{Path(self.real).stem}-real"
            if self.real is not None
            else f"agent-{Path(self.world or TrainAgentConfig.world).name}"
        )
        stored = read_config(TrainAgentConfig, folder / "config.json")
        before = {} if stored is None else asdict(stored)
        return TrainAgentConfig(**{**before, **typed}), folder

    def _draw(self, folder: Path) -> list[Path]:
        from magi_world.agents.ppo import curves

        drawn = []
        try:
            drawn.append(curves.draw_returns({folder.name: folder}, folder / "curves.png"))
            if self.judged is not None:
                pairs = curves.compare_checkpoints(folder, self.judged, self.dreamt)
                drawn.append(curves.draw_comparison(pairs, folder / "judged.png"))
        except (ImportError, ValueError) as error:
            # Nothing was asked for by name; a run in which no episode ended has nothing to draw.
            if self.judged is not None:
                raise
            print(f"no curves.png: {error}", file=sys.stderr)
        return drawn

    def _report(self, folder: Path, drawn: list[Path]) -> None:
        from magi_world.agents.ppo.policy import read_policy

        record, _ = read_policy(folder)
        found = dict(record.figures)
        rate = record.steps / found["seconds"]
        share = found["world"] / found["seconds"]
        if self.json:
            figures = {"steps_per_s": rate, "world_share": share, **found}
            print_json({"run": str(folder), "steps": record.steps, **figures})
            return
        print(f"{record.steps} steps in {found['seconds']:.0f} s: {rate:.1f} steps/s, "
              f"{share:.0%} of the time in the world")  # fmt: skip
        if "return" in found:
            print(f"return {found['return']:.3f} over the last {found['episodes']} episodes, "
                  f"{found['length']:.1f} chunks each")  # fmt: skip
        print("\n".join(f"  {path}" for path in (folder, *drawn)))


def _engine(name: str) -> Callable[..., Path]:
    if name == "rllib":
        from magi_world.agents.ppo.rllib import train_agent_with_rllib

        return train_agent_with_rllib
    from magi_world.agents.ppo.train import train_agent

    return train_agent


# In the folder one is in, and in a clone of the repository.
CONFIGS = (Path("configs"), Path(__file__).parents[2] / "configs")


@dataclass(frozen=True, kw_only=True)
class EvalAgent(JsonOption):
    """Judge an agent in the real simulator.

    Plays episodes of fixed seeds in the simulator that a world was trained on. With -o, Ctrl-C
    loses nothing; the same command goes on, and later agents join the table.

    Agents:
    - random: every command equally likely.
    - "constant:turn left": always this command.
    - dreamer: the policy that comes along, trained in a dream alone.
    - FOLDER, greedy:FOLDER: a policy that train-agent wrote: commands drawn with its probabilities,
      or always the likeliest.
    - planner: imagines futures in the world; planner:futures=4,chunks=2,world=NAME.
    - collect: the policy that recorded the training data (it sees the simulator's inside).
    - package.module:thing: an agent, or a function of (observation, info), of your own.
    """

    agents: Annotated[Words, arg(metavar="[AGENT ...]")] = option("one or more, see above", ())
    config: Opt[str] = option(
        "a world, or the YAML file that it was trained from; default: the world that the first "
        "agent was trained in, else the shipped one"
    )
    baselines: Switch = option("also: random, every constant command, collect", False)
    dream: Opt[str] = option(
        "play in this world (a name or a folder) instead of the simulator, to compare the two; "
        "needs --max-chunks"
    )
    episodes: Count = option("of each agent", JudgeConfig.episodes)
    seed: int = option("of the first episode", JudgeConfig.seed)
    max_chunks: OptCount = option("cut episodes short")
    processes: Count = option("side by side", JudgeConfig.processes)
    threads: Count = option("of the CPU, per process", 1)
    output: Annotated[OptFile, Output] = option("keep the results in this JSON file")
    video: OptFile = option(
        "film the median episode to this MP4; of several agents each, in FILE-AGENT.mp4"
    )
    markdown: Switch = option("print the table in Markdown", False)

    def run(self) -> int:
        try:
            from magi_world.agents.judge import Results, Setting, baseline_names
            from magi_world.simulator import load_object
            from magi_world.threads import settle_threads
            from magi_world.training.settings import read_settings
        except ModuleNotFoundError as error:
            raise ImportError(f"judging needs pip install 'magi-world[doom]' ({error})") from error

        names = list(self.agents)
        config = read_settings(find_config(self.config or _home(names)))
        if self.baselines:
            common = baseline_names(list(config.commands), self.dream is not None)
            names += [name for name in common if name not in names]
        if not names:
            raise ValueError("no AGENT was named; name one, or ask for --baselines")
        if self.video is not None and self.video.suffix.lower() != ".mp4":
            raise ValueError(f"--video is {self.video}; it must end in .mp4")
        settle_threads(self.threads)
        wanted = JudgeConfig(self.episodes, self.seed, self.processes)
        make_env, dream = self._where(config)
        own = config.evaluate.agents
        scores: judge.Scores | None = load_object(own) if own else None
        results = Results(Setting.of(config, self.max_chunks, dream), self.output, scores)
        with no_litter(Path.cwd()), results.alone():
            for name in names:
                _judge(name, make_env, wanted, results, quiet=self.json)
            if self.video is not None:
                for name in names:
                    slug = "".join(c if c.isalnum() else "-" for c in name).strip("-")
                    film = self.video.with_stem(f"{self.video.stem}-{slug}")
                    _film(name, make_env, results, film if len(names) > 1 else self.video)
        self._report(results)
        return 0

    def _where(self, config: WorldTrainConfig) -> tuple[judge.EnvMaker, str]:
        """What makes the environment, and the fingerprint of the world if it is a dream."""
        from magi_world.envs.env import MagiWorldEnv
        from magi_world.envs.real import RealWorldEnv
        from magi_world.envs.rewards import LearnedReward
        from magi_world.loading import LoadOptions, load_world

        if self.dream is None:
            return partial(RealWorldEnv, config, self.max_chunks), ""
        if self.max_chunks is None:
            raise ValueError("--dream needs --max-chunks: a dream has no limit of its own")
        # An end is drawn with its probability, as it would come in the simulator.
        make = partial(
            MagiWorldEnv,
            world=self.dream,
            reward=LearnedReward(sample_end=True),
            max_chunks=self.max_chunks,
            load=LoadOptions(device="cpu"),
        )
        return make, load_world(self.dream, device="cpu").spec.fingerprint

    def _report(self, results: Results) -> None:
        from magi_world.agents.judge import as_table

        if self.json:
            print_json(results.record())
            return
        print(as_table(results.rows(), "pipe" if self.markdown else "plain"))
        if self.output is not None:
            print(f"  {self.output}", file=sys.stderr)


def find_config(name: str) -> Path:
    """The configuration of a world, by its file or by the world's name.
    Raises FileNotFoundError: there is none; the message says where was looked.
    """
    path = file(name)
    places = (path, *(folder / f"{Path(name).name}.yaml" for folder in CONFIGS))
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, places))
    raise FileNotFoundError(
        f"--config is {name!r}, and there is no such file; it must be a world with a configuration "
        f"or a YAML file like configs/courtyard.yaml (looked for {looked})"
    )


def _home(names: list[str]) -> str:
    """The world that the first trained policy knows, else the default one."""
    from magi_world.agents.loading import policy_folder
    from magi_world.agents.ppo.policy import policy_record

    for name in names:
        if (folder := policy_folder(name)) is not None and (world := policy_record(folder).world):
            return world
    return default_world()


def _judge(
    name: str,
    make_env: judge.EnvMaker,
    wanted: JudgeConfig,
    results: Results,
    quiet: bool,
) -> None:
    from tqdm import tqdm

    from magi_world.agents import judge
    from magi_world.agents.judge import agent_digest

    known = results.open(name, agent_digest(name))
    ready = sum(episode.seed in wanted.seeds for episode in known)
    bar = tqdm(
        total=wanted.episodes, initial=ready, desc=name, unit="episode", file=sys.stderr,
        disable=quiet,
    )  # fmt: skip

    def done(episode: judge.Episode) -> None:
        results.add(name, episode)
        bar.update()
        mean = judge.figures(results.episodes(name))["reward"].mean
        bar.set_postfix_str(f"reward {mean:.2f}")

    with bar:
        judge.judge_agent(judge.NamedAgent(name), make_env, wanted, known, done)


def _film(name: str, make_env: judge.EnvMaker, results: Results, path: Path) -> None:
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
