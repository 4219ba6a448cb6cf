"""The folder that is ready to deploy: ONNX files, bundle, labels, model card; it appears as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.elastic.cnn import ElasticCNN
from rlprune.optimization.reports.card import model_card
from rlprune.optimization.result import OptimizeResult
from rlprune.optimization.subject import Subject
from rlprune.storage.bundle import save_bundle
from rlprune.storage.folders import replaced, write_to_disk
from rlprune.utils.files import writing

FOLDER = "deploy"


def write_deploy(
    out: Path,
    result: OptimizeResult,
    subject: Subject,
    network: ElasticCNN,
    dynamic: DynamicCNN,
    files: Mapping[str, bytes],
) -> None:
    """Write the folder, in the place of an earlier one.

    Args:
        out: of the optimisation; `deploy/` appears in it.
        result: what the card tells.
        subject: what was optimised.
        network: the elastic network.
        dynamic: it with its policy, at the price that was chosen.
        files: content of the ONNX files, by name.
    """
    folder = out / FOLDER
    notes = subject.notes | {"penalty": dynamic.penalty}
    with writing(folder), replaced(folder) as fresh:
        for name, content in files.items():
            write_to_disk(fresh / name, content)
        write_to_disk(fresh / "labels.txt", _labels(subject).encode())
        save_bundle(fresh / "bundle", network, dynamic.source_policy, subject.splits.network, notes)
        names = [*files, "labels.txt", "bundle"]
        write_to_disk(fresh / "README.md", model_card(result, names).encode())


def _labels(subject: Subject) -> str:
    """A class name per line, in the order of the labels; what would break a line becomes a space."""
    return "".join(" ".join(name.split()) + "\n" for name in subject.splits.network.classes)
