"""`augment=back_translate`: paraphrase a text by translating it to another language and back.

Back-translation: Sennrich et al. 2016; as augmentation of classifiers: Xie et al. 2020, UDA, section 2.2. Both
directions are models that lmctl trained (or any seq2seq model directory). Each text is sampled at most `variants`
times, from the full output distribution; results are cached in memory, so that later epochs cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lmctl.augment.base import Augment
from lmctl.core.errors import ConfigError
from lmctl.core.paths import Place
from lmctl.core.pretrained_files import check_fit, config_of, find, refuse_random, tokenizer_of, weights_of
from lmctl.core.vocabulary import Each, Rewrite, Vocabulary

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from lmctl.plan import Plan


@dataclass(frozen=True)
class BackTranslate(Augment):
    """Paraphrase `rate` of the texts."""

    there: Place
    back: Place
    rate: float = 0.5
    variants: int = 1
    temperature: float = 0.8
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"rate is a probability from 0 to 1, got {self.rate}")
        for name in ("variants", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if self.temperature < 0:
            raise ValueError(f"temperature must not be negative (0: the likeliest piece), got {self.temperature}")

    def check(self, plan: Plan) -> Iterator[ConfigError]:
        for key, place in self._models().items():
            find(key, place)
        yield from ()

    def _models(self) -> dict[str, str]:
        """Model path by config key."""
        return {"augment.there": self.there, "augment.back": self.back}

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        from lmctl.augment.tokens import TextCodec

        text = TextCodec(tokenizer)
        legs = [_Translator(key, place, self.temperature, self.max_new_tokens) for key, place in self._models().items()]
        known: dict[tuple[bytes, int], np.ndarray] = {}

        def paraphrase(pieces: np.ndarray, generator: np.random.Generator) -> np.ndarray:
            if generator.random() >= self.rate:
                return pieces
            variant = int(generator.integers(self.variants))
            key = (pieces.tobytes(), variant)
            if key not in known:
                (written,) = text.read([pieces])
                for leg in legs:
                    # The seed depends on text and variant only, not on the epoch of their first use.
                    written = leg.translate(written, variant)
                (ids,) = text.write([written])
                known[key] = ids if len(ids) else pieces
            return known[key]

        return Each(paraphrase)


class _Translator:
    """One direction of translation."""

    def __init__(self, key: str, path: str, temperature: float, max_new_tokens: int) -> None:
        from transformers import AutoModelForSeq2SeqLM

        what, place = f"{key}={path}", find(key, path)
        config = config_of(what, place)
        if not config.is_encoder_decoder:
            raise ConfigError(
                f"{what} is no translation model", "train one: lmctl train mix=translate data=parallel ..."
            )
        self.tokenizer = tokenizer_of(what, place)
        self.model, new, _ = weights_of(what, AutoModelForSeq2SeqLM, place, config)
        refuse_random(what, new)
        check_fit(what, self.tokenizer, self.model)
        self.model.eval()
        self.temperature, self.max_new_tokens = temperature, max_new_tokens

    def translate(self, text: str, seed: int) -> str:
        import torch

        inputs = self.tokenizer(text, return_tensors="pt", truncation=True, return_token_type_ids=False)
        sampling = [_gumbel(self.temperature, seed)] if self.temperature else []
        with torch.no_grad():
            output = self.model.generate(
                **inputs, do_sample=False, num_beams=1, max_new_tokens=self.max_new_tokens, logits_processor=sampling
            )
        return str(self.tokenizer.decode(output[0], skip_special_tokens=True))


def _gumbel(temperature: float, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """A logits processor [B, V] that adds Gumbel noise, so that greedy decoding samples from softmax(logits /
    temperature) (the Gumbel-max trick; Maddison et al. 2014, section 2). `generate`'s own sampling uses the global
    generator, which the network's dropout uses concurrently in another thread."""
    import torch

    generator = torch.Generator().manual_seed(seed)

    def noisy(ids: Tensor, logits: Tensor) -> Tensor:
        uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64)
        tiny = torch.finfo(torch.float64).tiny
        return logits.double() / temperature - (-uniform.clamp_min(tiny).log()).log()

    return noisy
