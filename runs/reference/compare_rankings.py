"""Rankings of channels: what half of a network is worth under each, before and after training on.

    python runs/reference/compare_rankings.py resnet20 resnet20.safetensors

takes a network with weights of $RLPRUNE_WEIGHTS, keeps half of the channels of every group, the most important ones by
each criterion, trains what is left on, from labels and the whole network, and writes rankings.json into the network's
folder. Accuracies are of the test images; criteria are computed on training images.
"""

import argparse
from pathlib import Path
from typing import Any

from rlprune.elastic.cnn import ElasticCNN
from rlprune.intake.options import DataOptions
from rlprune.metrics import accuracy
from rlprune.models.weights import find_weights
from rlprune.pipelines.inputs import build_model
from rlprune.profiles.cost import Cost
from rlprune.training.distillation import cache_teacher_logits
from rlprune.training.pretraining import pretrain
from rlprune.training.settings import TrainingSettings
from rlprune.utils.files import write_json
from rlprune.utils.hardware import conditions

CRITERIA = ("l1", "l2", "bn_scale", "gradient", "taylor", "hessian")
KEPT = 0.5
HERE = Path(__file__).parent


def main() -> None:
    """Rank, cut, measure, train on, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("weights")
    named = parser.parse_args()
    splits = DataOptions("cifar10", shares=(0.9, 0.08, 0.02)).load()
    images = splits.network
    test = splits.test
    dense = build_model(named.model, find_weights(named.weights, HERE), splits).eval()
    settings = TrainingSettings(epochs=3, learning_rate=0.02, views=3)
    soft = cache_teacher_logits(dense, images, settings)
    rows = []
    for name in CRITERIA:
        ranked = {"keep_ratios": (KEPT, 1.0), "importance": name, "calibration": images}
        elastic = ElasticCNN.from_model(dense, tuple(images.images.shape[1:]), **ranked)
        half = elastic.slice(elastic.uniform(0)).eval()
        cost = Cost(elastic)
        row: dict[str, Any] = {
            "criterion": name,
            "macs_cut": 1 - float(cost.of(elastic.uniform(0)).macs / cost.dense.macs),
            "before": accuracy(half, test),
        }
        pretrain(half, images, settings, teacher=soft)
        rows.append(row | {"after": accuracy(half.eval(), test)})
        print(rows[-1], flush=True)
    found = {"dense_accuracy": accuracy(dense, test), "epochs": settings.epochs, "rows": rows, **conditions()}
    write_json(HERE / named.model / "rankings.json", found)


if __name__ == "__main__":
    main()
