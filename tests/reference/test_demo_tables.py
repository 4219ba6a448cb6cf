from __future__ import annotations

from demo_tables import evaluation_table, verdict_table
from optimized import RESULT


def test_what_is_to_be_deployed_is_bold_and_the_sentences_stand_below() -> None:
    lines = verdict_table(RESULT.to_json()).splitlines()
    assert lines[0] == "| network | accuracy % | points lost (95 %) | MACs saved, % | ms at batch 1 | speed-up |"
    assert lines[2] == "| yours (eager) | 92.50 | 0.00 (0.00 to 0.00) | 0.0 | 3.41 | 0.52 |"
    assert "| **rlprune** | 92.17 | 0.33 (-0.44 to 1.11) | 58.0 | 0.84 | 2.12 |" in lines
    assert lines[-len(RESULT.sentences) :] == list(RESULT.sentences)


def test_controls_stand_below_what_was_learnt() -> None:
    found = {"dense": "original", "dense_accuracy": 0.986, "accuracy": 0.984, "accuracy_interval": [0.974, 0.99]}
    found |= {"macs_cut": 0.877, "n_images": 1000, "mean_passes": 1.038}
    found["controls"] = dict.fromkeys(("shuffled", "best_static", "uniform", "random"), 0.978)
    found["controls_macs_cut"] = dict.fromkeys(found["controls"], 0.877)
    lines = evaluation_table(found).splitlines()
    assert lines[2:4] == [
        "| dense (original) | 98.60 | 0 |",
        "| **learnt, per image** (95 % interval 97.4 to 99.0) | 98.40 | 87.7 |",
    ]
    assert len(lines) == 10 and lines[-1] == "1000 test images, 1.04 passes per image."
