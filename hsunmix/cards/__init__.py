"""Model cards: of the bundled checkpoints from what was measured, of other weights from what they are.

`python -m hsunmix.cards` renders the former, see `model_cards/README.md`.
"""

from .bundled import MARK, bundled_card
from .plain import plain_card

__all__ = ["MARK", "bundled_card", "plain_card"]
