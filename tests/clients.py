"""The examples of clients on digits, each with its client in an environment of its own: a line for each bar.

    python tests/clients.py [--folder build/clients] [--steps 10000] [CLIENT ...]

Makes the environments with pip where they are missing, and a network for digits; then runs every example in one
process and in several, and RL Zoo with four algorithms. The exit status is 1 if a return did not rise, something
warned of this library, or a program of RL Zoo failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples" / "clients"
PACKAGES = {
    "loop": ("torch",),
    "tianshou": ("tianshou",),
    "torchrl": ("torchrl",),
    "rllib": ("ray[rllib]",),
    "optuna": ("optuna",),
    "zoo": ("rl_zoo3", "requests", "moviepy"),  # the last two are what it imports and does not ask for
}
"""What is installed for each client, beside this project and what it depends on."""
RUNS: dict[str, list[tuple[str, ...]]] = {
    "loop": [("cleanrl_loop.py", "--n-envs", "8", "--mode", mode) for mode in ("vector_entry_point", "sync", "async")],
    "tianshou": [("tianshou_ppo.py",), ("tianshou_ppo.py", "--asynchronous")],
    "torchrl": [("torchrl_ppo.py",), ("torchrl_ppo.py", "--asynchronous")],
    "rllib": [("rllib_ppo.py",), ("rllib_ppo.py", "--n-runners", "2")],
    "optuna": [("optuna_search.py", "--trials", "2")],
}
ALGORITHMS = {
    "ppo": "DigitsProfiles-v0",
    "a2c": "DigitsProfiles-v0",
    "trpo": "DigitsProfiles-v0",
    "sac": "DigitsRatios-v0",
}
"""Algorithms of RL Zoo, and the environment of each."""


def python_of(folder: Path, client: str) -> Path:
    """The interpreter of a client's environment, which is made if it is not there."""
    place = folder / "venvs" / client
    python = place / "bin" / "python"
    if not (place / "complete").exists():
        print(f"making {place}", flush=True)
        pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch==")]
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(pinned))
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--constraint", constraints]
        subprocess.run([*install, "--editable", f"{ROOT}[demo]", *PACKAGES[client]], check=True)
        (place / "complete").touch()
    return python


def make_network(folder: Path) -> Path:
    """A network for digits, pretrained and adapted for a few epochs, if it is not there."""
    network, weights = folder / "network", folder / "dense.safetensors"
    shared = ("--model", "digits_cnn", "--data", "mnist5k", "--epochs", "4", "--no-flip", "--padding", "2")
    if not weights.exists():
        subprocess.run([sys.executable, "-m", "rlprune", "pretrain", *shared, "--out", weights], check=True)
    if not network.exists():
        adapt = ("adapt", *shared, "--weights", weights, "--out", network, "--resume")
        subprocess.run([sys.executable, "-m", "rlprune", *adapt], check=True)
    return network


def run(command: list[str | Path], folder: Path) -> tuple[str, list[str]]:
    """What a command says on its output, and what is wrong with how it ran."""
    hidden = os.environ | {"SDL_VIDEODRIVER": "dummy", "OMP_NUM_THREADS": "1"}  # processes share the cores
    ran = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, env=hidden)
    wrong = [] if ran.returncode == 0 else [f"status {ran.returncode}: {ran.stderr.strip().splitlines()[-1:]}"]
    warned = [line for line in ran.stderr.splitlines() if "Warning" in line or "WARN" in line]
    return ran.stdout, wrong + [line for line in warned if "rlprune" in line or "gymnasium" in line]


def examples(folder: Path, client: str, network: Path, steps: int) -> Iterator[tuple[str, list[str], str]]:
    """Run a client's example in each of its ways: its name, what is wrong, and what it came to."""
    python = python_of(folder, client)
    for script, *options in RUNS[client]:
        command = [python, "-W", "always::UserWarning", EXAMPLES / script, "--network", network, *options]
        said, wrong = run([*command, "--steps", str(steps)], folder)
        found = re.search(r"episode: (\S+) at first, (\S+) at last", said)
        if found and float(found[1]) >= float(found[2]):
            wrong.append("the return did not rise")
        if not said.strip():
            wrong.append("it said nothing")
        yield " ".join([script, *options]), wrong, said.strip().splitlines()[-1] if said.strip() else ""


def zoo(folder: Path, network: Path, steps: int) -> Iterator[tuple[str, list[str], str]]:
    """Train, enjoy, optimise and record with four algorithms of RL Zoo, from its YAML files."""
    python = python_of(folder, "zoo")
    place = folder / "zoo"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(EXAMPLES / "zoo", place)
    environments = place / "environments.yml"
    environments.write_text(environments.read_text().replace("runs/digits/network", str(network)))
    for algorithm, environment in ALGORITHMS.items():
        trained = place / "logs" / algorithm / f"{environment}_1"
        learn = ("-conf", f"{algorithm}.yml", "-n", str(steps), "--seed", "1")
        tuning = ("--optimize-hyperparameters", "--n-trials", "2", "--n-startup-trials", "1", "--n-evaluations", "1")
        # a trial may sample rollouts of 4,096 steps for each environment, and an update of 2,048 images for each step
        tuning += ("--hyperparams", "n_envs:2", "-n", "1000")
        programs: list[tuple[str, tuple[str, ...]]] = [
            ("train", (*learn, "--eval-freq", str(steps // 2), "--eval-episodes", "100")),
            ("enjoy", ("-f", "logs", "-n", "200", "--no-render", "--exp-id", "1")),
            ("train", (*learn, *tuning, "--no-optim-plots")),
            ("record_video", ("-f", "logs", "-n", "20", "--exp-id", "1")),
        ]
        for name, options in programs:
            command = [python, "-m", f"rl_zoo3.{name}", "--algo", algorithm, "--env", environment, *options]
            said, wrong = run(command, place)
            if name == "record_video" and not list(trained.glob("videos/*.mp4")):
                wrong.append("there is no video")
            if tuning[0] in options and not re.search(r"finished trials:\s+2\b", said):
                wrong.append("it did not finish two trials")
            told = "Eval num|Mean reward|Number of fin|Saving video"
            lines = [line for line in said.splitlines() if re.match(told, line)]
            yield f"RL Zoo, {algorithm}: {name} {'two trials' if tuning[0] in options else ''}", wrong, "; ".join(lines)


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clients", nargs="*", metavar="CLIENT", help=f"some of {', '.join(PACKAGES)}; all if none")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "clients")
    parser.add_argument("--steps", type=int, default=10_000)
    given = parser.parse_args()
    if unknown := set(given.clients) - set(PACKAGES):
        parser.error(f"there is no client {', '.join(unknown)}; there are {', '.join(PACKAGES)}")
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    network = make_network(folder)
    failed = False
    for client in given.clients or PACKAGES:
        found = zoo(folder, network, given.steps) if client == "zoo" else examples(folder, client, network, given.steps)
        begun = time.monotonic()
        for name, wrong, said in found:
            print(f"{'FAILED' if wrong else 'ok':6} {name} ({time.monotonic() - begun:.0f} s): {said}", flush=True)
            for line in wrong:
                print(f"       {line}", flush=True)
            failed, begun = failed or bool(wrong), time.monotonic()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
