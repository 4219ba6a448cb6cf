"""What the result of an optimisation looks like: the last screen, the page `report.html`, and the model card.

They show what `rlprune.optimization.result` holds, and decide nothing. May import that, `rlprune.evaluation` and below.
"""

from rlprune.optimization.reports.card import model_card
from rlprune.optimization.reports.page import write_page
from rlprune.optimization.reports.screen import print_check, print_verdict, verdict_table

__all__ = ["model_card", "print_check", "print_verdict", "verdict_table", "write_page"]
