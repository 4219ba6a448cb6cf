"""A right call of every verb, and what each of its options cannot take."""

from __future__ import annotations

import re

SMALL = ("--data", "pets", "--epochs", "1", "--batch-size", "8")
NETWORK = ("--model", "digits_cnn", "--weights", "dense.safetensors")
TINY = ("--total-steps", "64", "--n-envs", "8", "--n-steps", "4", "--batch-size", "16", "--n-candidates", "8")
RIGHT: dict[str, tuple[str, ...]] = {
    "optimize": (*NETWORK, "--data", "pets", "--out", "made"),
    "inspect": ("--model", "digits_cnn", "--image-shape", "3", "8", "8"),
    "pretrain": ("--model", "digits_cnn", "--out", "made.safetensors", *SMALL),
    "adapt": (*NETWORK, "--out", "made", *SMALL),
    "train": ("--network", "net", "--out", "made", "--data", "pets", *TINY),
    "sweep": ("--network", "net", "--out", "made", "--data", "pets", "--over", "max_passes=1,2", *TINY),
    "gate": (*NETWORK, "--out", "made", *SMALL),
    "prune": ("--network", "net", "--out", "made", *SMALL, "--n-candidates", "8"),
    "evaluate": ("bundle", "--data", "pets", "--n-candidates", "8"),
    "export": ("--network", "net", "--policy", "run", "--out", "made"),
    "predict": ("bundle", "pets/cat/0.png"),
    "serve": ("bundle", "--port", "0"),
    "bench": ("bundle", "--data", "pets", "--seconds", "0"),
    "compare": ("--network", "net", "--out", "made", "--data", "pets"),
    "run": ("recipe.toml", "--out", "made"),
    "demo": ("--out", "made"),
}
"""A call of each verb with which nothing is wrong; `made` is not there yet."""

INPUTS = {"network", "policy", "start", "weights", "teacher_weights", "bundle", "files", "folder", "onnx", "recipe"}
REQUIRED = ("--model", "--network", "--out", "--data", "--policy")
NONE_THERE = ("missing", "empty", "pipe", "/dev/zero", "pets/cat", "pets/cat/0.png", "missing/x")
NOWHERE = ("recipe.toml/x", "pets", "")
NAMES: dict[str, tuple[str, ...]] = {
    "model": (
        "nothing",
        "timm:nothing",
        "torchvision:nothing",
        "nothing:at_all",
        "os:getcwd",
        "math:inf",
        "recipe.toml",
        "",
    ),
    "data": ("nothing here", "missing.parquet", "nothing:at_all", "os:getcwd", "recipe.toml", "pipe", "/dev/zero", ""),
    "heldout": ("nothing here", "missing.parquet", "recipe.toml", "pipe"),
    "teacher": ("resnet20", "nothing"),
    "importance": ("nothing", ""),
    "cost": ("nothing", "latenc", ""),
    "device": ("meta", "cuda", "cuda:99", "tpu", "cpu:x", "0", ""),
    "methods": ("nothing", "nothing:at_all", "os:getcwd", "math:inf", "rivals.py:x", ""),
    "preprocess": (
        "nothing=3",
        "mean=nan,std=1",
        "mean=x,std=1",
        "resize=-1",
        "mean=0.5,std=0",
        "crop=1e9",
        "nothing:there",
        "",
    ),
    "image_column": ("nothing",),
    "label_column": ("nothing",),
    "test_split": ("nothing",),
    "rows": ("nothing",),
    "target": ("missing", "pets", ""),
    "ppo": ("x", "[]", "3", ""),
    "reward": ("nothing", "nothing:at_all", "math:inf", "collections:OrderedDict", "{x", '{"class": 3}', ""),
    "observation": ("nothing", "nothing:at_all", "math:inf", "{x", ""),
    "algorithm": ("nothing", "ars", "dqn9", "sac", "os:getcwd", "nothing:there", "math:inf", ""),
    "arguments": ("x", "[]", "3", "", '{"gamma": 2}', '{"buffer_size": 3}', '{"policy_kwargs": 5}'),
    "policy_kwargs": ("x", "[]", '{"activation_fn": "GELU"}', '{"activation_fn": 3}', '{"a": 1}', '{"net_arch": [4]}'),
    "callbacks": ("nothing", "nothing:there", "os:getcwd", "math:inf", "recipe.toml", ""),
    "host": ("256.1.1.1", "1.1.1.1", "a b", ""),
    "cluster": ("nothing", "nothing:0", "host:port", "127.0.0.1:1", ""),
    "over": ("nothing", "nothing=3", "penalty=", "penalty=x", "penalty=2..1", "seed=1..2", "pool=0..4", "cost=x", ""),
    "triton_name": ("a/b", "..", ""),
}
"""Text that is none of what an option takes."""
PPO = """{"gamma": NaN} {"gamma": 2} {"gamma": "x"} {"policy_kwargs": 5} {"policy_kwargs": {"net_arch": [4]}} {"a": 1}
{"policy_kwargs": {"a": 4}} {"policy_kwargs": {"optimizer_kwargs": 3}} {"n_epochs": "x"} {"n_epochs": 0}
{"clip_range": -1} {"clip_range": "x"} {"learning_rate": 1e30} {"learning_rate": -1} {"learning_rate": [1]} {"seed": -1}
{"device": "cuda"} {"device": 3} {"batch_size": 70000000000} {"batch_size": 1} {"target_kl": -1} {"max_grad_norm": -1}
{"n_steps": 1e9} {"n_steps": 60000000} {"env": 3} {"verbose": "x"} {"normalize_advantage": 3} {"use_sde": true}
{"stats_window_size": -1} {"gae_lambda": 3} {"vf_coef": 1e300} {"ent_coef": -1e9} {"tensorboard_log": 3} {"policy": 3}
{"rollout_buffer_class": "x"} {"rollout_buffer_kwargs": 3} {"_init_setup_model": false} {"sde_sample_freq": "x"}"""
NAMES["ppo"] += tuple(re.findall(r"{.*?}(?= {|\n|$)", PPO))
NO_TOML = ('"x"', "nan", "inf", "-1", "1e30", "true", "{}", "1979-05-27", "100000000000000000000", "[[3]]")
NO_NUMBER = ("x", "", "nan", "inf", "-inf", "1e400", "-1", "1e30", "99999999999999999999", "0x10", "None3")
ZERO_IS_RIGHT = set(
    """average_share combine distillation early_share early_size entropy epochs keep_ratios max_drop max_wait_ms
    momentum n_random padding penalties penalty pool port pretrain_epochs profile_epochs rounds scale_penalty seconds
    seed shares slice_epochs sparsities sparsity split_seed strength threads views warm_up weight_decay""".split()
)
SHARES = set("average_share densities density distillation early_share momentum threshold warm_up".split())
CONFLICTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "optimize": (("--min-speedup", "2", "--max-ms", "3"), ("--max-macs", "0"), ("--penalties", "1", "0.1")),
    "train": (
        ("--penalty", "0.3", "--penalty-range", "0.1", "1"),
        ("--penalty-range", "0.1", "1", "--action", "levels"),
        ("--penalty-range", "1", "0.1"),
        ("--n-envs", "7"),
        ("--n-envs", "65536", "--n-steps", "65536"),
        ("--n-profiles", "17"),
        ("--max-passes", "4"),
        ("--start", "run", "--action", "levels"),
        ("--extend", "9"),
    ),
    "adapt": (
        ("--int8", "--bf16"),
        ("--n-random", "0", "--no-sandwich"),
        ("--teacher", "resnet20"),
        ("--keep-ratios", "1", "0.5"),
        ("--keep-ratios", "0.5", "0.7"),
        ("--shares", "0.5", "0.5", "0.5"),
        ("--image-size", "8", "--preprocess", "resize=8,crop=8"),
    ),
    "pretrain": (("--padding", "9"), ("--out", "made"), ("--early-size", "1")),
    "prune": (("--budget", "0.0001"), ("--budget", "2"), ("--split-seed", "3"), ("--shares", "0.2", "0.4", "0.4")),
    "evaluate": (("--budget", "0.5", "--penalty", "1"), ("--budget", "0.5"), ("--model", "resnet20")),
    "predict": (("--budget", "0.5", "--penalty", "1"), ("--onnx", "bundle/dynamic.onnx", "--budget", "0.5")),
    "bench": (
        ("--batch", "0"),
        ("--batch", "9999"),
        ("--budget", "0.5", "--penalty", "1"),
        ("--rows", "all", "dense"),
        ("--max-wait-ms", "5"),
    ),
    "export": (
        ("--budget", "0.5"),
        ("--data", "pets"),
        ("--int8",),
        ("--triton", "models"),
        ("--onnx", "--triton", "recipe.toml"),
        ("--onnx", "--triton", "models", "--triton-name", "a/b"),
    ),
    "serve": (("--which", "static"), ("--backend", "pytorch", "--which", "static"), ("--preprocess", "resize=3")),
    "compare": (("--policy.cost", "latency"), ("--policy.penalty-range", "0.1", "1"), ("--methods",)),
}
