"""Pure mathematics of the normalizations: moments, and each formula with its own gradient."""

from tf_evonorm.functional.evonorm import evonorm_b, evonorm_b_in_training, evonorm_s
from tf_evonorm.functional.gradients import with_gradient
from tf_evonorm.functional.masked import masked_batch_moments, masked_evonorm_b
from tf_evonorm.functional.moments import OVER, all_sum, batch_moments, fitting_groups, moments
from tf_evonorm.functional.reductions import (
    compilable,
    mean_and_variance,
    raised,
    sums_over_positions,
    traced_for,
    worth_compiling,
)

__all__ = [
    "OVER",
    "all_sum",
    "batch_moments",
    "compilable",
    "evonorm_b",
    "evonorm_b_in_training",
    "evonorm_s",
    "fitting_groups",
    "masked_batch_moments",
    "masked_evonorm_b",
    "mean_and_variance",
    "moments",
    "raised",
    "sums_over_positions",
    "traced_for",
    "with_gradient",
    "worth_compiling",
]
