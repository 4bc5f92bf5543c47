"""Every public layer keeps every promise of `contract.py`."""

import contract
import pytest

every_case = pytest.mark.parametrize("case", contract.CASES, ids=str)


@every_case
def test_eager_graph_and_xla_agree(case):
    contract.modes_agree(case)


@every_case
def test_config_round_trip(case):
    contract.config_makes_the_same(case)


@every_case
def test_saved_round_trips(case, tmp_path):
    contract.saved_is_the_same(case, tmp_path)


@every_case
def test_a_checkpoint_holds_every_weight(case, tmp_path):
    contract.checkpoint_holds_every_weight(case, tmp_path)


@every_case
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(case, dtype):
    contract.half_precision_is_finite(case, dtype)


@every_case
def test_unknown_batch_and_image_sizes(case):
    contract.unknown_sizes_agree(case)


@every_case
def test_one_fit_step_changes_every_weight(case):
    contract.one_step_changes_every_weight(case)


@every_case
def test_two_replicas_equal_one(case, two_replicas):
    contract.replicas_agree(case, two_replicas)
