"""Serving is light: it needs five packages, and imports nothing of what trains."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
from lent import lend

import rlprune

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "runs" / "reference" / "resnet20" / "bundle"
TRAINING_STACK = """gymnasium stable_baselines3 tensorboard torch_pruning tyro rich tqdm matplotlib pandas
datasets pyarrow mlxtend onnx onnxruntime""".split()
TRAINING_ROOMS = [f"rlprune.{room}" for room in "training baselines evaluation pipelines cli envs agents".split()]
SERVE = """
import json, sys
import torch
torch.set_num_threads(1)
import rlprune
model = rlprune.load(sys.argv[1])
images = torch.load(sys.argv[2])
predicted = model(images)
said = {"labels": predicted.labels.tolist(), "macs": predicted.macs.tolist(), "modules": sorted(sys.modules)}
print(json.dumps(said))
"""


def python(executable: str | Path, *arguments: str | Path, cwd: Path) -> str:
    """What Python prints, run far from the sources."""
    command = [str(part) for part in (executable, *arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_rlprune_imports_nothing_that_trains(tmp_path: Path) -> None:
    code = "import sys, torch; before = {*sys.modules}; import rlprune; print(*{*sys.modules} - before)"
    loaded = python(sys.executable, "-c", code, cwd=tmp_path).split()
    assert "rlprune.deployment.dynamic_cnn" in loaded
    assert [name for name in (*TRAINING_STACK, *TRAINING_ROOMS, "pydantic") if name in loaded] == []


def test_what_trains_is_imported_when_it_is_asked_for(tmp_path: Path) -> None:
    code = "import sys, rlprune; rlprune.TrainingSettings; print(*sys.modules)"
    loaded = python(sys.executable, "-c", code, cwd=tmp_path).split()
    assert "rlprune.training.settings" in loaded and "stable_baselines3" not in loaded


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh environment: requirements-serving.txt, and the wheel without its dependencies."""
    work = tmp_path_factory.mktemp("serving")
    source = work / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for folder in ("rlprune", "envs", "agents"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    venv.create(work / "venv", with_pip=False)
    executable = work / "venv" / "bin" / "python"
    needed = (ROOT / "requirements-serving.txt").read_text().splitlines()
    lend([line for line in needed if not line.startswith("#")], work / "venv")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    python(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", work, source, cwd=work)
    python(*pip, "--python", executable, "install", "--no-deps", next(work.glob("*.whl")), cwd=work)
    return executable


def test_a_committed_bundle_is_served_where_the_training_stack_is_not_installed(serving: Path, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    torch.save(images, tmp_path / "images.pt")
    listing = "import importlib.metadata as m; print(*(each.name for each in m.distributions()))"
    names = {name.lower().replace("-", "_") for name in python(serving, "-c", listing, cwd=tmp_path).split()}
    assert names.isdisjoint(TRAINING_STACK) and "rlprune" in names
    served = json.loads(python(serving, "-c", SERVE, BUNDLE, tmp_path / "images.pt", cwd=tmp_path))
    here = rlprune.load(BUNDLE)(images)
    assert served["labels"] == here.labels.tolist() and served["macs"] == here.macs.tolist()
    assert [name for name in TRAINING_ROOMS if name in served["modules"]] == []


def test_what_is_missing_there_is_named(serving: Path, tmp_path: Path) -> None:
    code = """
import rlprune
for use in (lambda: rlprune.ElasticCNN.from_model(rlprune.models.build("resnet20"), (3, 32, 32)),
            lambda: rlprune.optimize, lambda: rlprune.evaluate, lambda: __import__("rlprune.envs")):
    try:
        use()
    except ImportError as error:
        print(error)
"""
    lines = python(serving, "-c", code, cwd=tmp_path).splitlines()
    assert len(lines) == 4
    assert "'torch_pruning'" in lines[0] and "'gymnasium'" in lines[-1]
    for line in lines:
        assert any(f"this needs the package '{name}'" in line for name in TRAINING_STACK)
        assert "which is not installed; install it with: pip install rlprune" in line
    command = subprocess.run([serving.parent / "rlprune", "--help"], capture_output=True, text=True, check=False)
    assert command.returncode == 2 and "the command line needs the package" in command.stderr
    assert "Traceback" not in command.stderr
