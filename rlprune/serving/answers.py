"""What a server says, as values for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlprune.deployment.prediction import Prediction
from rlprune.serving.limits import Limits
from rlprune.serving.served import Served


def predictions(served: Served, predicted: Prediction, names: Sequence[str | None], top_k: int) -> list[dict[str, Any]]:
    """What is said of each picture.

    Args:
        served: what predicted.
        predicted: for B pictures.
        names: of the pictures, B of them; None for one without.
        top_k: how many classes are named, the most probable first; all, if there are fewer.
    """
    classes, dense = served.model.classes, int(served.model.prices.dense.macs)
    best = predicted.probabilities.sort(dim=1, descending=True, stable=True)  # of equals the first, as the label
    return [
        {
            "image": name,
            "label": label,
            "class": classes[label],
            "probability": float(predicted.probabilities[row, label]),
            "top": [
                {"label": each, "class": classes[each], "probability": probability}
                for each, probability in zip(
                    best.indices[row, :top_k].tolist(), best.values[row, :top_k].tolist(), strict=True
                )
            ],
            "passes": int(predicted.passes[row]),
            "macs": int(predicted.macs[row]),
            "macs_share": int(predicted.macs[row]) / dense,
        }
        for row, (name, label) in enumerate(zip(names, predicted.labels.tolist(), strict=True))
    ]


def about(served: Served, limits: Limits, version: str) -> dict[str, Any]:
    """What `GET /model` says.

    Args:
        served: what is served.
        limits: what may be sent.
        version: of rlprune.
    """
    channels, height, width = served.model.image_shape
    prices = served.model.prices
    preprocessing = served.preprocessing
    how = preprocessing.text if preprocessing.sizes else f"scaled until it covers {width}x{height}, and its middle cut"
    return {
        "file": served.source.path.name,
        "backend": served.source.backend,
        "version": version,
        "classes": list(served.model.classes),
        "image": {"channels": channels, "height": height, "width": width},
        "preprocessing": {"text": how, **preprocessing.to_json()},
        "prices": {
            "dense": _price(*prices.dense),
            "stem": _price(*prices.stem),
            "decision": _price(*prices.decision),
            "profiles": [_price(*each) for each in zip(*(part.tolist() for part in prices.bodies), strict=True)],
        },
        "budget": None if served.budgets is None else dict(zip(("lowest", "highest"), served.budgets, strict=True)),
        "limits": {
            "bytes": limits.max_bytes,
            "pictures": limits.max_pictures,
            "pixels": limits.max_pixels,
        },
    }


def _price(params: Any, macs: Any) -> dict[str, int]:
    return {"params": int(params), "macs": int(macs)}
