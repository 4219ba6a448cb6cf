"""A mistake on the command line is one line that names it, and changes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from pets import ADAPT, DATA, EXPORT, GATE, MODEL, NEW, PRETRAIN, PRUNE, TRAIN, content

from rlprune.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "--model", "resnet21"), "there is no network called 'resnet21'; choose one of resnet20"),
        (
            ("inspect", *MODEL, "--keep-ratios", "0.5", "0.2", "1"),
            r"--keep-ratios=\(0\.5, 0\.2, 1\.0\): give two or more numbers of 0",
        ),
        (("inspect", *MODEL, "--importance", "l3"), "importance 'l3' is unknown; allowed: l1, l2, bn_scale"),
        (
            (*PRETRAIN, "--momentum", "1"),
            r"--momentum=1\.0: give a number of 0 or more, below 1",
        ),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--teacher", "tinynet.nets:small"),
            "--teacher names 1 networks and --teacher-weights 0 files; give",
        ),
        (("adapt", "--model", "resnet2", *DATA, "--out", "x"), "there is no network called 'resnet2'; choose one of"),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--weights", "none.pt"),
            r"there is no weights file none\.pt; give a \.safetensors",
        ),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--data", "../no where"),
            r"there is nothing at '\.\./no where'; give a name",
        ),
        (("adapt", "--model", "resnet20", *DATA, "--out", "x"), "--weights is missing: resnet20 alone has random"),
        (
            (*ADAPT[:-1], "x", "--weights", "pets/cat/0.png"),
            r"pets/cat/0\.png cannot be read: it is damaged or needs pickle",
        ),
        ((*ADAPT, "--out", "pets"), "pets exists and is no folder that rlprune wrote; name another one"),
        (TRAIN, r"run/checkpoint\.zip is from an earlier run; resume it, or name another folder"),
        ((*TRAIN, "--resume", "--penalty", "9"), r"made under other settings \(penalty: 0\.3, now 9\.0\)"),
        ((*TRAIN, "--resume", "--n-candidates", "9"), r"codebook\.json was made under .*n_candidates: 6, now 9\); go"),
        ((*TRAIN, "--ppo", "{clip}"), r"--ppo is '{clip}', which is no JSON"),
        ((*TRAIN, "--ppo", "[1]"), r"--ppo is '\[1\]'; a JSON object is needed"),
        ((*TRAIN, "--out", "new", "--ppo", '{"clip": 1}'), "PPO has no argument 'clip'; allowed: learning_rate"),
        ((*PRETRAIN, "--out", "x.pt"), "--out is x.pt; weights are written as safetensors"),
        ((*ADAPT, "--out", "bundle"), "bundle holds a bundle, which a network would replace"),
        ((*TRAIN, "--out", "new", "--n-profiles", "17"), "--n-profiles is 17; 1 to 16 are allowed"),
        ((*TRAIN, "--out", "new", "--cost", "time"), "--cost='time': give one of params, macs, latency"),
        (
            (*TRAIN, "--out", "new", "--network", "run/policy"),
            "run/policy holds a policy; a network or bundle is needed",
        ),
        ((*NEW, "--penalty-range", "1", "0.1"), r"--penalty-range=\(1\.0, 0\.1\): give two numbers above 0, ascending"),
        (
            ("evaluate", "bundle", *DATA, "--budget", "0.4"),
            r"budget=0\.4 cannot be chosen: it was trained for a single",
        ),
        (("predict", "bundle", "pets/cat/0.png", "--penalty", "1"), r"penalty=1\.0 cannot be chosen: it was trained"),
        (("predict", "--onnx", "x.onnx", "x.png", "--penalty", "0.4"), r"x\.onnx decides at the price that it was exp"),
        (
            (*EXPORT, "--budget", "0.4"),
            "--budget and --penalty are for files of ONNX; a bundle takes any, from call to call",
        ),
        ((*EXPORT, "--int8"), "--int8 needs images to calibrate on: name what the network was adapted to with --data"),
        ((*EXPORT, "--int8", "--data", "mnist5k"), r"takes images of shape \(3, 8, 8\) in 2 classes, mnist5k has"),
        (("gate", "--model", "resnet20", *DATA, "--out", "x"), "--weights is missing: resnet20 alone has random"),
        ((*GATE, "--density", "2"), r"--density=2\.0: give a number above 0, below 1, or None"),
        ((*GATE, "--kind", "branches"), "this network has no branch that gates could skip"),
        ((*GATE, "--out", "bundle"), "bundle holds a bundle, which a gated would replace"),
        (("bench", "bundle", "--plot", "x.png"), "--plot needs labelled images; name the bundle's with --data"),
        (("bench", "bundle", *DATA, "--plot", "x.pdf"), r"plot=x\.pdf: pictures are PNG; give a name that ends in"),
        (("bench", "bundle", "--static", "x"), "--static needs labelled images; name the bundle's with --data"),
        (("bench", "bundle", *DATA, "--static", "bundle"), "bundle holds a bundle"),
        (("bench", "bundle", "--rows", "cascade"), "the row cascade needs images that do not test; name the bundle's"),
        (("bench", "bundle", "--profile", "--rows", "dense"), "give only one of --rows and --profile"),
        (("bench", "bundle", *DATA, "--profile", "--plot", "x.png"), "give only one of --plot and --profile"),
        (("bench", "env", *MODEL, "--profile"), "--profile is for bundles; env has rows alone"),
        (("bench", "env", *MODEL, "--plot", "x.png"), "--plot is for bundles; env has rows of its own"),
        (("bench", "env", *MODEL, *DATA, "--penalty", "1"), "--budget and --penalty are for bundles; env times no pol"),
        ((*PRUNE, "--budget", "0.01"), r"budget 0\.01 is below the cheapest profile found, which costs"),
        (
            (*PRUNE, "--budget", "2", "--how", "global"),
            r"--budget=2\.0: give a number above 0, up to 1",
        ),
        ((*PRUNE, "--budget", "0", "--how", "unstructured"), r"--budget=0\.0: give a number above 0, up to 1"),
        ((*EXPORT, *DATA), "--data is for --int8, whose calibration images it names"),
        (("evaluate", *DATA), "nothing to evaluate: name a bundle, or a network with --model and --weights"),
        (("evaluate", "pets", *DATA), r"pets/manifest\.json cannot be read \(No such file"),
        (
            ("evaluate", "bundle", "--data", "mnist5k"),
            r"takes images of shape \(3, 8, 8\) in 2 classes, mnist5k has \(1, 28, 28\) in 10; use the data that",
        ),
        (("evaluate", "bundle", *DATA, "--image-size", "9"), r"\(3, 8, 8\) in 2 classes, pets has \(3, 9, 9\) in 2;"),
        ((*NEW, "--image-size", "9"), r"\(3, 8, 8\) in 2 classes, pets has \(3, 9, 9\) in 2;"),
        (("evaluate", "bundle", *DATA, "--split-seed", "3"), "split of seed 0; with --split-seed 3 some of its train"),
        ((*NEW, "--split-seed", "3"), "split of seed 0; with --split-seed 3 some of its training images"),
        (
            (*PRETRAIN, "--data", "no where"),
            r"dense\.safetensors exists and is finished; name another --out, or remove it",
        ),
        ((*PRETRAIN, "--split-seed", "-1"), "--split-seed=-1: give a whole number of 0 or more"),
        ((*NEW, "--pool", "-1"), "--pool=-1: give a whole number of 0 or more"),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--model", "tinynet.nets:three_classes"),
            r"the network gives \(1, 3\) for one image; logits of shape \(1, 2\) are needed",
        ),
        (
            (*PRETRAIN[:-1], "x.safetensors", "--model", "tinynet.nets:grey"),
            r"the network fails on an image of shape \(3, 8, 8\): .*channels",
        ),
        (
            (*ADAPT[:-1], "x", "--model", "tinynet.nets:three_classes", "--weights", "dense.safetensors"),
            r"dense\.safetensors is for 2 classes and not for 3 \(5\.weight is its last layer\): train a new one with",
        ),
        (("export", "--network", "network", "--policy", "none", "--out", "x"), r"none/manifest\.json cannot be read"),
        (
            ("predict", "bundle", "pets/cat/none.png"),
            r"pets/cat/none\.png cannot be read as an image \(No such file or directory\);",
        ),
        (("predict", "bundle"), "there are no images; name at least one file"),
        (
            ("bench", "bundle", *DATA, "--batch", "0"),
            r"--batch=\(0,\): give a list, each entry a whole number of 1 or more",
        ),
        (("bench", "bundle", *DATA, "--batch", "9"), r"batch sizes are \[9\]; from 1 to 8"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    before = content(project)
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1 and re.search(f"^rlprune: error: .*{message}", lines[0]), lines
    assert content(project) == before


def test_every_wrong_option_has_a_line_that_names_it(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare = ("compare", "--network", "network", "--out", "x", *DATA)
    for arguments, expected in (
        (
            (*PRETRAIN, "--epochs", "-1", "--warm-up=2"),
            ["--epochs=-1: give a whole number of 0 or more", "--warm-up=2.0: give a number of 0 or more, below 1"],
        ),
        ((*PRETRAIN, "--learning-rate", "nan"), ["--learning-rate=nan: give a number above 0, and finite"]),
        ((*compare, "--training.epochs", "-1"), ["--training.epochs=-1: give a whole number of 0 or more"]),
        (
            (*ADAPT, "--int8", "--bf16", "True"),
            ["--int8=True and --bf16=True round to different numbers; give only one"],
        ),
    ):
        with pytest.raises(SystemExit, match="2"):
            main([*arguments])
        assert capsys.readouterr().err.splitlines() == [f"rlprune: error: {line}" for line in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pretrain", *MODEL, *DATA, "--out", "x", "--epochs", "many"), "many"),
        (("pretrain", *DATA, "--out", "x"), "--model"),
        (("bench", "bundle", "--seconds", "soon"), "soon"),
        (("train", "--action", "widths"), "widths"),
        (("prune",), "prune"),
    ],
)
def test_options_of_a_wrong_type_are_named(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    text = capsys.readouterr().err
    assert message in text and "Traceback" not in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((*NEW, "--ppo", '{"ent_coef": "x"}'), r"Stable-Baselines3's PPO cannot train with {'ent_coef': 'x'}: "),
        (
            (*PRETRAIN, "--out", "odd.safetensors", "--resume"),
            r"odd\.safetensors\.checkpoint\.pt is damaged or no checkpoint; remove it to start",
        ),
        ((*ADAPT, "--out", "odd", "--resume"), r"odd\.checkpoint\.pt is damaged or no checkpoint; remove it to start"),
        (
            (*PRETRAIN, "--out", "w.safetensors", "--resume"),
            r"w\.safetensors\.checkpoint\.pt is damaged or no checkpoint",
        ),
    ],
)
def test_a_mistake_that_shows_in_training_is_one_line(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    for name in ("odd", "odd.safetensors"):
        (project / f"{name}.checkpoint.pt").write_bytes(b"PK")
    torch.save({"weight": torch.zeros(2)}, project / "w.safetensors.checkpoint.pt")
    with pytest.raises(SystemExit, match="2"):
        main([*arguments])
    text = capsys.readouterr().err
    (line,) = (line for line in text.splitlines() if "error" in line)
    assert re.search(f"^rlprune: error: .*{message}", line) and "Traceback" not in text
