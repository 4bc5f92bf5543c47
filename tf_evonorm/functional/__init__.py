"""Pure mathematics of the normalizations: moments, and each formula with its own gradient."""

from tf_evonorm.functional.evonorm import OVER, all_sum, batch_moments, evonorm_b, evonorm_s, fitting_groups, moments

__all__ = ["OVER", "all_sum", "batch_moments", "evonorm_b", "evonorm_s", "fitting_groups", "moments"]
