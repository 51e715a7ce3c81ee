"""The peer of distill.py: a subclass of `transformers.Trainer` as one would write it by hand for DistilBERT's losses.

The teacher reads the same batch without gradients, the divergence of the softened distributions is added to the
model's own loss. `KD_ON=masked` keeps only masked positions for the divergence; the models compute logits everywhere.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.nn.functional as F
from common import side_parser
from peer_mlm import learn
from transformers import BertForMaskedLM, Trainer

TEMPERATURE, HARD = 2.0, 0.5


class Distiller(Trainer):
    """Hinton et al. 2015 on top of the model's own loss."""

    def __init__(self, *args: Any, teacher: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.teacher = teacher.eval().requires_grad_(False)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        out = model(**inputs)
        with torch.no_grad():
            known = self.teacher(input_ids=inputs["input_ids"]).logits
        said = out.logits
        if os.environ["KD_ON"] == "masked":
            masked = inputs["labels"] != -100
            said, known = said[masked], known[masked]
        said, known = (logits.flatten(0, -2) / TEMPERATURE for logits in (said, known))
        soft = F.kl_div(F.log_softmax(said, -1), F.softmax(known, -1), reduction="batchmean") * TEMPERATURE**2
        loss = (1 - HARD) * soft + HARD * out.loss
        return (loss, out) if return_outputs else loss


def main() -> None:
    args = side_parser(__doc__).parse_args()
    teacher = BertForMaskedLM.from_pretrained(args.work / "teacher", attn_implementation="sdpa")
    learn(args, layers=2, make=lambda **kwargs: Distiller(teacher=teacher, **kwargs))


if __name__ == "__main__":
    main()
