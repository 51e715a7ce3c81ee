"""Losses computed in chunks equal those of the whole, in bounded memory."""

from __future__ import annotations

import math

import pytest
import torch
from small import learner_of, plan, prepared, vocabulary
from taught import save_teacher
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lmctl.core.errors import LmctlError
from lmctl.distill.curriculum import Curriculum
from lmctl.distill.logits import Logits
from lmctl.mix.mix import Mix, Task
from lmctl.model.bert import Bert
from lmctl.objective.mlm import MaskedLM
from lmctl.objective.mlm_nsp import MaskedLMAndNextSentence
from lmctl.parallel.processes import Processes
from lmctl.train import learner
from lmctl.train.learner import Pass, Share
from lmctl.train.losses import chunks_of, weighed_losses, z_loss
from lmctl.train.trainer import Trainer


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("taught", [False, True], ids=["", "taught"])
def test_chunks_give_the_values_and_the_gradients_of_the_whole(tmp_path, passes, taught):
    """With a loss scale and learned weights, two passes being compared as well."""
    changes = {}
    if taught:
        place = save_teacher(tmp_path, heads={"mlm": vocabulary().size, "pair": 2})
        changes = {"teacher": (str(place),), "distill": Curriculum({"logits": Logits(weight=0.7)}, hard=0.3)}
    mix = Mix({"corpus": Task(MaskedLMAndNextSentence(), plan().data)}, balance="uncertainty")
    trainer = Trainer(plan(mix=mix, model=Bert(2, 32, 2, 64, dropout=0.2), **changes), prepared(), Processes(True))
    ours, batch = trainer.learner, trainer.stream.first("corpus", 8)
    share = Share({f"corpus/{name}": 2.0 * count for name, count in ours.counts(batch).items()}, 0.5, scale=1024.0)
    found = []
    for most in (1 << 20, 2000):
        ours.distillation.chunk_bytes = most
        torch.manual_seed(3)
        losses = ours([Pass(batch, 1 / passes)] * passes, share, agree=0.4 if passes == 2 else 0.0)
        losses.total.backward()
        values = [v for terms in (*losses.passes, losses.disagreement) for v in terms.values()]
        found.append(([losses.total.detach(), *values], [p.grad for p in ours.parameters()]))
        trainer.step.zero_grad()
    assert len(found[0][0]) == 1 + passes * (4 if taught else 2) + 2 * (passes - 1)
    for whole, parts in zip(*(values + gradients for values, gradients in found), strict=True):
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


class Largest(TorchDispatchMode):
    """Counts the rows of the largest tensor [n, width]; not those of the projection's own weights."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.width, self.hidden, self.rows = width, hidden, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        if isinstance(result, Tensor) and result.dim() == 2 and result.shape[1] == self.width != result.shape[0]:
            self.rows = max(self.rows, len(result) if len(result) != self.hidden else 0)
        return result


@pytest.mark.parametrize(("passes", "width"), [(1, 85), (2, 85), (1, 512)])
def test_no_logits_of_all_targets_are_ever_in_memory(monkeypatch, passes, width):
    """Without a teacher too, with all passes together, and with rows that only pad the vocabulary."""
    objective, text, rows = MaskedLM(), prepared(), 6
    network = Bert(1, 24, 2, 64, max_positions=64, pad_vocabulary_to=width).load(text.vocabulary, {"mlm": 85})
    monkeypatch.setattr(learner, "LOGITS_BYTES", rows * width * 4)
    batch = Trainer(plan(objective=objective), text, Processes(True)).stream.first("corpus", 8)
    with Largest(width, 24) as seen:
        share = Share({"corpus/mlm": 1.0})
        learner_of(network, objective)([Pass(batch)] * passes, share, agree=passes - 1.0).total.backward()
    assert len(batch.targets["mlm"].labels) > 3 * rows
    assert 0 < seen.rows <= rows / passes


def test_gradients_in_chunks_are_asked_for_once():
    hidden = torch.randn(9, 6).requires_grad_()
    total, values = weighed_losses(lambda h, rows: [h[0].sum()], [2.0], [hidden], [], chunks_of(9, 10, 80))
    assert values.tolist() == pytest.approx([hidden.sum().item()])
    total.backward(retain_graph=True)
    assert torch.equal(hidden.grad, torch.full_like(hidden, 2.0))
    with pytest.raises(LmctlError, match="can be asked for only once"):
        total.backward()


def test_z_loss_is_the_squared_logarithm_of_the_denominator():
    """Added to the gradient as its formula says, by every chunk; what is reported is without it."""
    logits = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    assert z_loss(logits).item() == pytest.approx(math.log(2) ** 2 + math.log(math.e + math.e**2) ** 2)
    found: dict[float, tuple[float, Tensor]] = {}
    for weight in (0.0, 0.5):
        trainer = Trainer(plan(z_loss=weight), prepared(), Processes(True))
        ours, batch = trainer.learner, trainer.stream.first("corpus", 8)
        ours.distillation.chunk_bytes = 2000
        counts = {f"corpus/{name}": float(count) for name, count in ours.counts(batch).items()}
        losses = ours([Pass(batch)], Share(counts))
        assert set(losses.passes[0]) == {"mlm", "nsp"}
        losses.total.backward()
        gradient = torch.cat([p.grad.flatten() for p in ours.network.parameters()])
        found[weight] = sum(float(value) for value in losses.passes[0].values()), gradient
    apart = z_loss(ours.logits(batch)["mlm"]) * 0.5 / counts["corpus/mlm"]
    wanted = torch.autograd.grad(apart, list(ours.network.parameters()), allow_unused=True)
    extra = [torch.zeros_like(p) if g is None else g for g, p in zip(wanted, ours.network.parameters(), strict=True)]
    torch.testing.assert_close(
        found[0.5][1], found[0.0][1] + torch.cat([g.flatten() for g in extra]), rtol=1e-4, atol=1e-6
    )
    assert found[0.5][0] == found[0.0][0]
