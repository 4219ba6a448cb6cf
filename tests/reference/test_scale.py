"""A fleet of replicas: what is known of queues, and of what controllers and autoscalers do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scale
from PIL import Image
from reference_results import ScaleResult
from scale import latency, most_a_second
from scale_fleet import Autoscaler, Speed, Way, run
from scale_tables import loads_table, scale_plot, serving_table, storage_table

COMMITTED = Path(__file__).parents[2] / "runs" / "reference" / "scale.json"
SPEED = Speed(100.0, 0.0, (0.25, 1.0), (0.8, 0.9))


def test_committed_files_come_back_as_the_same_text() -> None:
    assert json.dumps(ScaleResult.load(COMMITTED).to_json(), indent=1) + "\n" == COMMITTED.read_text()


def test_a_quiet_replica_answers_in_the_time_of_one_image() -> None:
    assert latency(0.01, 1, lambda batch: 0.005 * batch, 64) == pytest.approx(5, rel=1e-6)


def test_a_single_queue_of_single_images_has_the_latency_that_theory_gives() -> None:
    """M/D/1 at half load: 99 of 100 images are answered in 4.2 times the service time (Franx 2001)."""
    assert latency(50, 1, lambda batch: 0.01 * batch, 1) == pytest.approx(42, abs=4)


def test_batches_that_take_no_longer_than_one_image_answer_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "_N_IMAGES", 1000)
    alone = most_a_second(1, lambda _: 0.03, 1)
    together = most_a_second(1, lambda _: 0.03, 16)
    assert alone < 1 / 0.03 and together > 10 * alone


def test_an_autoscaler_acts_once_a_wish_has_lasted_and_starts_late() -> None:
    fleet = Autoscaler(1)
    for second in range(46):
        fleet.begin(second)
        fleet.follow(90, second)
        assert fleet.replicas == (3 if second >= 45 else 1)


def test_a_controller_alone_gives_accuracy_and_an_autoscaler_alone_replicas() -> None:
    cheap, scaled = run(Way(controls=True, scales=False), SPEED), run(Way(controls=False, scales=True), SPEED)
    assert cheap["accuracy"] < scaled["accuracy"] == pytest.approx(0.9)
    assert cheap["replica_hours"] == 1.5 < scaled["replica_hours"] and scaled["cheaper"] == 0


def test_an_autoscaler_that_counts_at_the_full_budget_is_not_held_back_by_a_controller() -> None:
    blind, seeing = (run(Way(controls=True, scales=True, at_full=at_full), SPEED) for at_full in (False, True))
    assert seeing["accuracy"] > blind["accuracy"] and seeing["replica_hours"] > blind["replica_hours"]


def test_tables_have_a_row_for_each_figure_and_networks_a_chart(tmp_path: Path) -> None:
    found = ScaleResult.load(COMMITTED)
    assert len(serving_table(found).splitlines()) == 2 + len(found.serving) // 2
    assert len(loads_table(found).splitlines()) == 2 + len(found.loads)
    assert len(storage_table(found).splitlines()) == 2 + len(found.storage)
    scale_plot(tmp_path / "scale.png", found)
    drawn = np.asarray(Image.open(tmp_path / "scale.png"))
    assert len(np.unique(drawn.reshape(-1, drawn.shape[-1]), axis=0)) > 100
