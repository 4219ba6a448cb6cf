"""Tests of runs/reference/time_tables.py."""

from time_tables import equal_time_table


def test_static_networks_stand_beside_ours_at_the_same_time() -> None:
    def row(name: str, ms: float, accuracy: float, backend: str = "pytorch", batch: int = 1) -> dict[str, object]:
        return {"name": name, "backend": backend, "batch": batch, "ms": ms, "accuracy": accuracy}

    rows = [row("dense", 4, 0.93), row("static 0.3", 1, 0.89), row("static 0.5", 2, 0.91), row("dynamic", 3, 0.925)]
    ort = [
        row("dense onnxruntime", 80, 0.93, "onnxruntime", 8),
        row("static 0.3 onnxruntime", 40, 0.89, "onnxruntime", 8),
        row("dynamic onnxruntime", 32, 0.925, "onnxruntime", 8),
        row("dynamic int8 onnxruntime", 16, 0.92, "onnxruntime", 8),
        row("dense int8 onnxruntime", 8, 0.93, "onnxruntime", 8),
    ]
    assert equal_time_table({"Net": {"rows": rows + ort}}).splitlines()[2:] == [
        "| Net | pytorch | 1 | 3.000 | 92.50 | 92.00 | +0.50 |  |  |",
        "| Net | onnxruntime | 8 | 4.000 | 92.50 |  |  | 2.000 | 92.00 |",
    ]
