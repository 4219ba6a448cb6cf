"""Whether a network can be written as an ONNX file, before anything is trained, and how fast that is."""

from __future__ import annotations

import time
from functools import partial
from statistics import median

import torch
from torch import Tensor

from rlprune.data.image_set import ImageSet
from rlprune.deployment.onnx.pieces import session
from rlprune.deployment.onnx.static import to_static_onnx
from rlprune.elastic.cnn import ElasticCNN
from rlprune.errors import RLPruneError
from rlprune.profiles.cost import Cost
from rlprune.utils.timing import interleaved

_SECONDS = 1.0


def ms_of_file(name: str, elastic: ElasticCNN, images: ImageSet, batch: int) -> tuple[float, float]:
    """Write the whole network as an ONNX file, and time a batch through it; time how long another takes.

    Args:
        name: of the network, as in messages.
        elastic: it.
        images: real ones.
        batch: images at once.

    Returns:
        Milliseconds of a batch, and seconds that writing a file takes; the first one of a process takes longer.

    Raises:
        RLPruneError: it cannot be written; the message says what it can run on instead.
    """
    dense = Cost(elastic).dense

    def written(profile: Tensor) -> bytes:
        return to_static_onnx(elastic.slice(profile), images, dense, image_shape=elastic.image_shape, dense=dense)

    try:
        content = written(elastic.full)
        begun = time.monotonic()
        written(elastic.uniform(elastic.narrowest))
        seconds = time.monotonic() - begun
        opened = session(content, torch.get_num_threads(), spin=False)
    except Exception as error:  # the exporter and onnxruntime raise whatever they like
        reason = " ".join(str(error).strip().partition("\n")[0].split())[:300]
        raise RLPruneError(
            f"backend='onnxruntime': {name} cannot be written as an ONNX file ({reason}); give backend='pytorch'"
        ) from error
    pixels = images.images[torch.arange(batch) % len(images)].numpy()
    run = partial(opened.run, ["label"], {"images": pixels})
    return median(interleaved({"file": run}, _SECONDS)["file"]), seconds
