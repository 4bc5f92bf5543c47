"""Pure mathematics of the normalizations: moments, and each formula with its own gradient."""

from tf_evonorm.functional.activated import batch_norm_activated, group_norm_activated, linear
from tf_evonorm.functional.evonorm import evonorm_b, evonorm_b_in_training, evonorm_s
from tf_evonorm.functional.gradients import with_gradient
from tf_evonorm.functional.masked import masked_batch_moments, masked_evonorm_b
from tf_evonorm.functional.moments import OVER, all_sum, batch_moments, fitting_groups, flattened, moments
from tf_evonorm.functional.reductions import (
    compilable,
    compiles,
    mean_and_variance,
    on_processors,
    raised,
    sums_over_positions,
    traced_for,
    worth_compiling,
)

__all__ = [
    "OVER",
    "all_sum",
    "batch_moments",
    "batch_norm_activated",
    "compilable",
    "compiles",
    "evonorm_b",
    "evonorm_b_in_training",
    "evonorm_s",
    "fitting_groups",
    "flattened",
    "group_norm_activated",
    "linear",
    "masked_batch_moments",
    "masked_evonorm_b",
    "mean_and_variance",
    "moments",
    "on_processors",
    "raised",
    "sums_over_positions",
    "traced_for",
    "with_gradient",
    "worth_compiling",
]
