"""How pictures are prepared for a network that is deployed: as is stored with it, and as the user may have to say."""

from __future__ import annotations

from rlprune.data.preprocessing import Preprocessing
from rlprune.deployment.dynamic_cnn import DynamicCNN
from rlprune.deployment.onnx.cnn import OnnxCNN
from rlprune.intake.notes import network_notes
from rlprune.intake.preprocessing import confirmed, whole


def of_deployed(model: DynamicCNN | OnnxCNN, text: str | None) -> Preprocessing:
    """How pictures are prepared for a network that is deployed; an own transform is imported only where it is named.

    Args:
        model: the network.
        text: as for `rlprune.intake.preprocessing.confirmed`.

    Raises:
        DataError: the user says something else, or an own transform is needed and not given.
    """
    if isinstance(model, DynamicCNN):
        return confirmed(whole(model), text, network_notes(model.metadata).get("model") or "")
    return confirmed(model.preprocessing, text)
