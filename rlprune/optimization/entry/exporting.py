"""Whether a network can be written as an ONNX file, before anything is trained, and how fast that is."""

from __future__ import annotations

from functools import partial
from statistics import median

import torch

from rlprune.data.image_set import ImageSet
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.onnx.static import to_static_onnx
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.profiles.cost import Cost
from rlprune.utils.timing import interleaved

_SECONDS = 1.0


def ms_of_file(name: str, elastic: ElasticCNN, images: ImageSet, batch: int) -> float:
    """Write the whole network as an ONNX file, and time a batch through it.

    Args:
        name: of the network, as in messages.
        elastic: it.
        images: real ones.
        batch: images at once.

    Returns:
        Milliseconds.

    Raises:
        RLPruneError: it cannot be written; the message says what it can run on instead.
    """
    dense = Cost(elastic).dense
    try:
        content = to_static_onnx(
            elastic.slice(elastic.full), images, dense, image_shape=elastic.image_shape, dense=dense
        )
        opened = session(content, torch.get_num_threads(), spin=False)
    except Exception as error:  # the exporter and onnxruntime raise whatever they like
        reason = " ".join(str(error).strip().partition("\n")[0].split())[:300]
        raise RLPruneError(
            f"backend='onnxruntime': {name} cannot be written as an ONNX file ({reason}); give backend='pytorch'"
        ) from error
    pixels = images.images[torch.arange(batch) % len(images)].numpy()
    run = partial(opened.run, ["label"], {"images": pixels})
    return median(interleaved({"file": run}, _SECONDS)["file"])
