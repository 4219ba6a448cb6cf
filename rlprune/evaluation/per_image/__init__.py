"""What decides per image, measured on logits that every profile gave once: rivals, and what a later pass does.

May import what `rlprune.evaluation` may.
"""

from rlprune.evaluation.per_image.later_pass import decision_figures
from rlprune.evaluation.per_image.rivals import cascade_point, oracle_points, tuned_cascades

__all__ = ["cascade_point", "decision_figures", "oracle_points", "tuned_cascades"]
