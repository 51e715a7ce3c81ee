"""A network whose weights are made later has the bits of one that was built at once."""

from __future__ import annotations

import pytest
import torch
from fsdp_workers import FAMILIES
from small_tasks import small_task

from lmctl.model.bert import Bert
from lmctl.parallel.deferred_weights import LEAST, DeferredWeights
from lmctl.train.build_parts import network_of

CASES = FAMILIES | {"padded vocabulary": ("mlm", {"model": Bert(1, 32, 2, 64, pad_vocabulary_to=2 * LEAST)})}


@pytest.mark.parametrize("case", CASES)
def test_weights_and_the_generator_are_those_of_an_ordinary_start(case: str):
    task, changes = CASES[case]
    plan, prepared = small_task(task, **changes)
    torch.manual_seed(3)
    expected = network_of(plan, prepared)
    after = torch.get_rng_state()
    torch.manual_seed(3)
    with DeferredWeights() as deferred:
        network = network_of(plan, prepared)
    assert torch.equal(torch.get_rng_state(), after)
    large = {name for name, p in expected.named_parameters() if p.numel() >= LEAST and p.ndim > 1}
    assert large <= {name for name, p in network.named_parameters() if p.is_meta}
    deferred.fill(network)
    assert torch.equal(torch.get_rng_state(), after)
    found, names = network.state_dict(), [name for name, _ in network.named_parameters()]
    assert names == [name for name, _ in expected.named_parameters()]
    for name, tensor in expected.state_dict().items():
        assert torch.equal(found[name], tensor), name
