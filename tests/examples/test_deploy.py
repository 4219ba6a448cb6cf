"""What is in examples/deploy fits the server, the project, and itself; Docker and Kubernetes are not needed."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import requires
from pathlib import Path
from typing import Any

import pytest

from rlprune.cluster.replicas import Opening, Replicas
from rlprune.serving.server import _SECONDS_TO_END
from rlprune.utils.imports import require

yaml = pytest.importorskip("yaml")
ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
ENDPOINTS = ("/ready", "/health", "/metrics")


def instructions(name: str) -> list[str]:
    """What follows an instruction of the Dockerfile, in the last stage or before."""
    return re.findall(rf"^\s*{name} +(.*)$", DOCKERFILE, re.MULTILINE)


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def test_the_dockerfile_copies_what_is_there_and_is_let_in() -> None:
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    sources = [source for line in instructions("COPY") if "--from" not in line for source in shlex.split(line)[:-1]]
    assert len(sources) >= 9 and set(sources) == let_in
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_is_small_and_has_no_rights() -> None:
    (user,), (check,) = instructions("USER"), instructions("HEALTHCHECK")
    assert user == "10001" and f"--uid {user}" in DOCKERFILE
    assert "/ready" in DOCKERFILE and ":8000/" in DOCKERFILE and check.startswith("--interval")
    assert len(instructions("FROM")) == 2 and all("slim" in line for line in instructions("FROM"))
    assert instructions("EXPOSE") == ["8000"]


def test_what_is_installed_is_what_serving_over_http_needs() -> None:
    lines = (DEPLOY / "requirements.txt").read_text().splitlines()
    extra = [
        line.partition(";")[0].strip() for line in requires("rlprune") or () if re.search(r"extra == .serve.", line)
    ]
    assert sorted(line for line in lines if not line.startswith("#")) == sorted(extra)


@pytest.mark.parametrize("place", ["Dockerfile", "kubernetes.yaml"])
def test_the_server_has_the_options_that_it_is_given(
    place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if place == "Dockerfile":
        (given,) = map(yaml.safe_load, instructions("CMD"))
    else:
        (container,) = documents(place)[0]["spec"]["template"]["spec"]["containers"]
        given = container["args"]
        assert container["ports"][0]["containerPort"] == int(given[given.index("--port") + 1])
    assert instructions("ENTRYPOINT") == ['["python", "-m", "rlprune.serving"]']
    monkeypatch.setattr(sys, "argv", ["serving", *given])
    with pytest.raises(SystemExit, match="2"):
        require("rlprune.serving.__main__").main()
    assert capsys.readouterr().err.startswith("rlprune: error: there is no /bundle")


def test_kubernetes_asks_where_the_server_answers_and_waits_for_its_end() -> None:
    deployment, service, scaler, budget = documents("kubernetes.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    probes = [container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")]
    assert [probe["path"] for probe in probes] == ["/ready", "/ready", "/health"]
    names = {port["name"] for port in container["ports"]}
    assert {probe["port"] for probe in probes} == {service["spec"]["ports"][0]["targetPort"]} == names
    waits = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > waits + _SECONDS_TO_END
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    selectors = deployment["spec"]["selector"], budget["spec"]["selector"]
    assert all(selector["matchLabels"] == labels == service["spec"]["selector"] for selector in selectors)
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}


def test_prometheus_looks_where_the_server_is() -> None:
    (compose,), (prometheus,) = documents("compose.yaml"), documents("prometheus.yaml")
    server = compose["services"]["rlprune"]
    assert (DEPLOY / server["build"]["context"]).resolve() == ROOT
    assert (ROOT / server["build"]["dockerfile"]).is_file()
    assert int(server["stop_grace_period"].removesuffix("s")) > _SECONDS_TO_END
    (scraped,) = prometheus["scrape_configs"]
    assert scraped["metrics_path"] in ENDPOINTS and scraped["static_configs"] == [{"targets": ["rlprune:8000"]}]
    assert server["ports"] == ["8000:8000"]
    bundle = re.search(r"\.\./\.\./\$\{BUNDLE:-(.*?)\}:/bundle:ro", server["volumes"][0])
    assert bundle is not None and (ROOT / bundle[1] / "manifest.json").is_file()
    mounted = compose["services"]["prometheus"]["volumes"][0].split(":")
    assert (DEPLOY / mounted[0]).is_file() and mounted[1] in compose["services"]["prometheus"]["command"][0]


def test_ray_serve_takes_its_configuration() -> None:
    from rlprune.cluster.connection import hushed

    (service,) = documents("rayservice.yaml")
    config = yaml.safe_load(service["spec"]["serveConfigV2"])
    with hushed("ray.serve"):
        require("ray.serve.schema").ServeDeploySchema.model_validate(config)
    (application,) = config["applications"]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(require(module), name))
    assert set(application["args"]) <= {*Opening.__annotations__, *Replicas.__annotations__}
