"""Which terms a pretext model may have, as a list or as separate arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_evonorm.mistakes import Mistake
from tf_pixpro.pretext.pixel_terms import is_pixel_term


def split_terms(terms: Sequence[Any]) -> tuple[Any, Any]:
    """(the term on pixels or None, the term on whole views or None) of a list of terms.

    Raises:
      Mistake: if there are two of a kind, none at all, or a weight is not positive.
    """
    kinds = [[term for term in terms if is_pixel_term(term) == on_pixels] for on_pixels in (True, False)]
    strange = [term for term in kinds[1] if not hasattr(term, "query") or not hasattr(term, "target")]
    if strange or not terms or any(len(kind) > 1 for kind in kinds):
        received = ", ".join(type(term).__name__ for term in terms) or "none"
        raise Mistake(
            f"terms must be one on pixels, one on whole views, or both. Received {received}. Pass for example "
            "terms=[PixelConsistency(), BYOL()]."
        )
    for term in terms:
        if not term.weight > 0:
            raise Mistake(f"a term needs a positive weight. Received weight={term.weight}. Leave the term out.")
    return tuple(kind[0] if kind else None for kind in kinds)  # type: ignore[return-value]


def check_unused(parts: Sequence[Any], weights: Sequence[float]) -> None:
    """Refuses heads and weights that are given beside a list of terms."""
    if any(part is not None for part in parts) or any(weight != 1 for weight in weights):
        raise Mistake(
            "terms hold their heads and weights. Received terms and projection, propagation, instance or a "
            "weight beside them. "
            "Pass them to the terms, e.g. terms=[PixelConsistency(projection), BYOL(weight=0.5)]."
        )


def check_terms(pixel_part: Any, instance: Any, pixel_weight: float, instance_weight: float) -> None:
    """Refuses weights that are negative or leave nothing to learn, and heads of a term that is left out."""
    if pixel_weight < 0 or instance_weight < 0 or not (pixel_weight or instance):
        raise Mistake(
            "weights must not be negative, and one term must be left. Received "
            f"pixel_weight={pixel_weight}, instance_weight={instance_weight}, instance={instance}. Pass "
            "instance=BYOL() or SimCLR()."
        )
    if instance is not None and not instance_weight:
        raise Mistake("an instance term needs a weight. Received instance_weight=0. Pass instance=None instead.")
    if pixel_part is not None and not pixel_weight:
        raise Mistake("without a pixel term there are no pixel heads. Received heads and pixel_weight=0. Leave them.")
