"""The nouns that the rooms share: batches, targets, terms, and one protocol per config group.

Each protocol has a verb of its own, because `isinstance` on a protocol sees only names. Nothing here imports
torch at run time: `lmctl --help` and most config errors must answer in about a second.

Shapes are written with R rows, L positions in a row, N targets, H hidden units, V pieces of vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerFast

    from lmctl.core.draws import Draws
    from lmctl.core.store import TokenStore
    from lmctl.core.vocabulary import Vocabulary

Split: TypeAlias = Literal["train", "valid"]

Kind: TypeAlias = Literal["documents", "labelled", "parallel"]
"""What the rows of a source are: documents of sentences; one text or two with a label; a text and its translation."""

Family: TypeAlias = Literal["encoder", "decoder", "seq2seq"]
"""Which positions a network lets look at which: all at all; each at those before it; a decoder at an encoder."""

LabelKind: TypeAlias = Literal["class", "classes", "number"]
"""What a label is: one of several classes, any number of them, or a number."""

Document: TypeAlias = "list[str]"
"""The sentences of one document, in order, each a non-empty string without line breaks; or its lines, each with the
line break that ends it, where a text is read as it stands."""

Terms: TypeAlias = "dict[str, Tensor]"
"""Named parts of a loss, each a scalar *summed* over its targets; the runner divides once, by the global count."""


class Row(NamedTuple):
    """One row of a source."""

    texts: list[str]
    """The sentences of a document; or one text, or two; or a text and its translation."""
    label: str | float | list[str] | None = None
    where: str = ""
    """`file:line`, for messages."""


@dataclass(frozen=True)
class Targets:
    """What one term of the loss is asked to predict."""

    positions: Tensor
    """int64 [N]: places in the flattened [R * L] batch (of the decoder's side, where there are two); the rows
    themselves, 0 to R - 1, where a whole row is asked about."""
    labels: Tensor
    """The right answer at each of them: int64 [N]; or float32 [N] for numbers, float32 [N, C] of zeros and ones
    where several classes may hold."""


class RowNumbers(NamedTuple):
    """Which rows of their task a batch is made of; in the host's memory."""

    numbers: np.ndarray
    """int64 [R]"""
    epochs: np.ndarray
    """int64 [R]: as it is in which epoch."""


@dataclass(frozen=True)
class Batch:
    """Rows of one task, ready for the model."""

    task: str
    inputs: dict[str, Tensor]
    """`input_ids` int64 [R, L]; where the task needs them

    - `token_type_ids` int64 [R, L];
    - `attention_mask` bool [R, L], only when there is padding, or bool [R, L, L] (query, key) where documents that
      share a row must not see each other, then with `position_ids` int64 [R, L] that begin anew in each;
    - `decoder_input_ids` int64 [R, T] and, only when there is padding, `decoder_attention_mask` bool [R, T];
    - `track` int64 [R] and `fresh` bool [R] where a recurrent network carries its state from batch to batch: the
      row goes on where the last row of its track ended, unless it is fresh."""
    targets: dict[str, Targets]
    """Per term of the loss. Its name is the name of the term."""
    tokens: int
    """Real tokens in the batch, padding not counted."""
    rows: RowNumbers | None = None
    """Where the rows can be found again by their numbers."""
    own: bool = False
    """Whether the student wrote what is asked about: a teacher's opinion of it counts then, the text does not."""

    def counts(self) -> dict[str, int]:
        """Number of targets per term."""
        return {name: len(target.labels) for name, target in self.targets.items()}

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`; copies do not block the host where memory is pinned."""
        if device.type == "cpu":
            return self

        def move(tensor: Tensor) -> Tensor:
            return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

        targets = {name: Targets(move(t.positions), move(t.labels)) for name, t in self.targets.items()}
        inputs = {name: move(t) for name, t in self.inputs.items()}
        return replace(self, inputs=inputs, targets=targets)


@runtime_checkable
class Source(Protocol):
    """Group `data`: where text comes from.

    Three attributes are optional. `label_names`: the classes in their order, where the source knows them beforehand
    and the training rows need not show them all. `streamed` True: it is a `StreamedSource`. `embedded` True: its text
    comes with Python or lmctl, so that nobody minds if `lmctl plan` looks at it.
    """

    @property
    def yields(self) -> Kind:
        """What its rows are."""
        ...

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that change whenever `rows` would yield something else: file contents, options."""
        ...

    def rows(self, split: Split) -> Iterator[Row]:
        """The rows of one split, always the same ones in the same order."""
        ...

    def describe(self) -> str:
        """The source in a few words: what was found, and how it was read."""
        ...


StreamPlace: TypeAlias = "dict[str, Any]"
"""Where a source stands in its stream, as JSON: what it needs to find the place again."""


@dataclass(frozen=True)
class Block:
    """Rows of a stream that follow each other, fit for training: none of them is held out."""

    rows: list[Row]
    after: StreamPlace | None
    """Where the block behind it begins; None: there is none, the stream has ended."""


class StreamedSource(Source, Protocol):
    """A source whose training rows are read in blocks while training, so that no more than a block or two of them is
    ever at hand. All that must be finite comes from its first block: `rows("train")` yields that one only."""

    streamed: bool

    def block(self, epoch: int, at: StreamPlace | None, order: Draws) -> Block:
        """The block of pass `epoch` over the stream that begins at `at`, None being its beginning: the same rows
        for the same arguments in every process. Parts of the stream may come in another order in every pass, drawn
        from `order`, but for the first one. DataError if it cannot be read, or if a row is bad."""
        ...


def streamed(source: Source) -> StreamedSource | None:
    """`source` if its training rows are streamed, else None."""
    return cast("StreamedSource", source) if getattr(source, "streamed", False) else None


@runtime_checkable
class TokenizerSpec(Protocol):
    """Group `tokenizer`: how text becomes pieces."""

    def identity(self) -> Mapping[str, Any]:
        """JSON values that, with the training text, determine the tokenizer."""
        ...

    def obtain(self, sentences: Iterator[str]) -> PreTrainedTokenizerFast:
        """Train on `sentences` (or load, and leave them alone)."""
        ...


Rewrite: TypeAlias = "Callable[[np.ndarray, np.random.Generator], np.ndarray]"
"""An augmentation at work: the pieces of one text int64 [n] in, other pieces int64 [m] (m above 0) out."""


@runtime_checkable
class Augment(Protocol):
    """Group `augment`: how a text is changed before it is learnt from."""

    def rewriter(self, tokenizer: PreTrainedTokenizerFast, vocabulary: Vocabulary) -> Rewrite | None:
        """The augmentation for texts of this tokenizer; None: texts stay as they are."""
        ...


@dataclass(frozen=True)
class Material:
    """All that the examples of a task are made of."""

    task: str
    store: TokenStore
    vocabulary: Vocabulary
    family: Family
    seq_len: int
    """Positions per row, special pieces included; on either side, where there are two."""
    batch_rows: int = 1
    """Rows of the task in one optimiser step: as many tracks where state is carried from row to row."""
    rewrite: Rewrite | None = None


class Examples(Protocol):
    """The rows that an objective makes of its material.

    Two attributes are optional. `lengths` int64 [len]: positions of each row; rows of similar length are then put
    side by side. `ordered` True: rows must come in the order of their numbers, in every epoch.
    """

    def __len__(self) -> int: ...

    @property
    def tokens_per_row(self) -> float:
        """Mean number of real tokens, for mixing tasks by tokens."""
        ...

    def collate(self, rows: np.ndarray, epochs: np.ndarray, draws: Draws) -> Batch:
        """Rows int64 [R], each as it is in its own epoch (int64 [R]); all randomness comes from `draws`."""
        ...


@runtime_checkable
class Objective(Protocol):
    """Group `objective`: what is predicted from what.

    One attribute is optional. `carries_state` True: its network carries a state from row to row.
    """

    @property
    def reads(self) -> Kind:
        """The kind of rows it is made of."""
        ...

    @property
    def families(self) -> tuple[Family, ...]:
        """The families of networks that can learn it."""
        ...

    @property
    def pieces(self) -> tuple[str, ...]:
        """Special pieces that the tokenizer must have for it, besides the usual five."""
        ...

    @property
    def label_kind(self) -> LabelKind | None:
        """What the labels of its rows are; None where it reads none."""
        ...

    def heads(self, task: str, store: TokenStore, vocabulary: Vocabulary) -> dict[str, int]:
        """The heads the network needs and how many outputs each has: "mlm" and "lm" [V], "pair" [2], a head named
        after the task [number of classes]. `store` is the training split."""
        ...

    def examples(self, material: Material) -> Examples: ...

    def terms(self, network: Network, batch: Batch) -> Terms:
        """The losses of one batch, in nats (squared error for numbers); named like `batch.targets`."""
        ...

    def scores(self, network: Network, batch: Batch) -> Terms:
        """For validation: the losses, and under `<term>_accuracy` and the like whatever else can be summed over
        the targets of `<term>`; tensors of any shape, if `figures` knows what to make of their sum."""
        ...

    def figures(self, means: dict[str, Any]) -> dict[str, float]:
        """What is reported of the `scores` of a whole split, each summed and divided by its number of targets."""
        ...

    def baseline(self, batch: Batch, train: TokenStore) -> dict[str, Any]:
        """The same sums as `scores` for the best guess that never looks at the text, made from the training split."""
        ...


class Network(Protocol):
    """What a model of the group `model` can do once loaded; an `nn.Module`."""

    def encode(self, inputs: Mapping[str, Tensor], read: Tensor | None) -> Tensor:
        """Last hidden states [N, H] at the flattened positions `read` int64 [N], and nowhere else (of the decoder,
        where there is one besides the encoder). None: one summary [R, H] of each row, as this architecture
        makes it: the first position of an encoder, the last real one of a decoder, ..."""
        ...

    def head(self, name: str, hidden: Tensor) -> Tensor:
        """Logits [N, V or classes] of the named head for hidden states [N, H]."""
        ...

    def word_embeddings(self) -> Any:
        """The `nn.Embedding` that makes vectors [R, L, H] of `input_ids` (of the encoder's, where there is a decoder
        besides)."""
        ...

    def memory(self) -> Any:
        """What a network that carries a state from batch to batch has carried so far; None for others."""
        ...

    def recall(self, memory: Any) -> None:
        """Go on from what `memory` gave."""
        ...

    def checkpoint_activations(self) -> None:
        """Recompute activations in the backward pass from now on instead of keeping them."""
        ...

    def compile_body(self) -> None:
        """Run the layers through torch.compile from now on."""
        ...

    def pretrained(self) -> Any:
        """The transformers `PreTrainedModel` that holds the weights, for export."""
        ...


@runtime_checkable
class ModelSpec(Protocol):
    """Group `model`: an architecture and its size.

    One attribute and one method are optional. `carries_state` True: its network carries a state from row to row, for
    objectives that ask for it. `outline`: like `load`, but weights that were trained before are not read, so that it
    may be called where tensors hold nothing (torch's meta device). Without it `load` is called there.
    """

    @property
    def family(self) -> Family: ...

    @property
    def max_positions(self) -> int | None:
        """Longest row it takes; None: any."""
        ...

    def load(self, vocabulary: Vocabulary, heads: Mapping[str, int]) -> Any:
        """An `nn.Module` that is a `Network` as well; Python types have no word for both. `heads` maps the name of
        each head it must have to its number of outputs."""
        ...


class LossScaler(Protocol):
    """Guards one optimiser step against gradients that are not finite."""

    def scale(self, loss: Tensor) -> Tensor: ...

    def unscale(self, optimizer: torch.optim.Optimizer) -> None: ...

    def step(self, optimizer: torch.optim.Optimizer, grad_norm: Tensor) -> bool:
        """Take the step if the gradients are finite; says whether it was taken."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class RunParts(Protocol):
    """What a precision may ask about the rest of the run: the parts of a plan that it has to go with."""

    @property
    def model(self) -> ModelSpec:
        """Optional attributes: `linear_layers` False where there are none but heads; `lora_rank`, see `Pretrained`."""
        ...

    @property
    def runner(self) -> Where: ...

    @property
    def compile(self) -> bool: ...


@runtime_checkable
class Precision(Protocol):
    """Group `precision`: number formats of parameters, products and updates; `lmctl.precision.base.Standard` has the
    defaults."""

    @property
    def product(self) -> str | None:
        """The low-precision product that the self-proof must find in the first forward pass."""
        ...

    @property
    def storage(self) -> str | None:
        """The format in which the self-proof must find weights kept."""
        ...

    @property
    def least_decibel(self) -> float:
        """The least signal-to-noise ratio against float32 that the self-proof accepts."""
        ...

    def refuse_run(self, run: RunParts) -> str | None:
        """Why it does not go with the rest of the run and what is nearest, or None; asked before any work."""
        ...

    def refuse(self, device: torch.device) -> str | None:
        """Why this device cannot do it and what is nearest, or None."""
        ...

    def convert(self, network: nn.Module, device: torch.device) -> list[str]:
        """Change the modules of a network that is loaded, still on the CPU, and soon on `device`, in place; returns
        what is worth saying about it. Names in its `state_dict` may change, those of parameters must not."""
        ...

    def products(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, matrix products run in this precision."""
        ...

    def reference(self, device: torch.device) -> AbstractContextManager[Any]:
        """Inside it, and outside of `products`, the same network computes in float32."""
        ...

    def optimiser(self, spec: OptimSpec, learner: nn.Module, device: torch.device, seed: int) -> torch.optim.Optimizer:
        """The update rule of `spec`, for parameters as this precision keeps them. `seed` is the run's, the same in
        all processes: what is drawn from it must be, too."""
        ...

    def restore(self, model: nn.Module) -> nn.Module:
        """`model`, or a copy, with plain float weights in plain layers, for export."""
        ...

    def scaler(self, device: torch.device) -> LossScaler: ...

    def table(self, device: torch.device) -> dict[str, str]:
        """dtypes by role: parameter, master, compute, accumulate, gradient, reduction, optimiser."""
        ...


@runtime_checkable
class Quantization(Protocol):
    """Group `quantize`: in what form the weights of a model that has learnt are kept."""

    @property
    def product(self) -> str | None:
        """The low-precision product that a forward pass must have, or it did nothing."""
        ...

    @property
    def storage(self) -> str:
        """The format in which weights must be found."""
        ...

    def quantize(self, network: nn.Module, device: torch.device) -> list[str]:
        """Change the layers of a network that is on the CPU, and soon on `device`, in place; returns what is worth
        saying about it. ConfigError if there is nothing to change."""
        ...


class Seen(NamedTuple):
    """What one forward pass of a micro-batch gave."""

    terms: Terms
    logits: dict[str, Tensor]
    """Per term [N, C] for its N targets; empty unless they were asked for."""


class Outcome(NamedTuple):
    """What an adversary reports of a micro-batch, for the record."""

    terms: Terms
    """The losses on the rows as they are."""
    adversarial: Terms
    """By term: the losses on rows made difficult, or how far apart two passes' answers are."""


class Pass(Protocol):
    """One micro-batch in an adversary's hands, which may run it forward and backward any number of times.

    A shift float32 [R, L, H] is added to the word embeddings of the rows (of the encoder's side, where there are
    two); at padding it changes nothing and its gradient is 0. Every pass drops out the same units as the first one
    unless it is `fresh`, and starts from the state that a recurrent network had before the first one.
    """

    @property
    def batch(self) -> Batch: ...

    def zeros(self) -> Tensor:
        """A shift of nothing that `backward` gives a gradient."""
        ...

    def start(self) -> Tensor:
        """A random shift: even draws from -1 to 1 over the root of their number in the row, so that no row is longer
        than 1 (Zhu et al. 2020, algorithm 1); the same for a row in whatever micro-batch, others in every step."""
        ...

    def forward(
        self, shift: Tensor | None = None, *, last: bool = False, fresh: bool = False, logits: bool = False
    ) -> Seen:
        """A pass that parameters may learn from. Exactly one is the `last`: in the backward pass that follows it,
        which no other may follow, gradients cross the network."""
        ...

    def loss(self, terms: Terms) -> Tensor:
        """What `terms` of this micro-batch add to the loss of the step: each over the global count of its targets."""
        ...

    def penalty(self, terms: Terms) -> Tensor:
        """The same for terms that come on top of the losses."""
        ...

    def backward(self, loss: Tensor) -> None:
        """Add to the gradients of parameters, and of shifts that want one. It comes out multiplied by the loss scale:
        only a shift's direction means anything."""
        ...

    def gradient(self, shift: Tensor, loss: Callable[[Seen], Tensor], logits: bool = False) -> Tensor:
        """The gradient of `loss` of a pass by its shift, up to the loss scale; parameters get none."""
        ...

    def noisy(self, augment: Augment) -> Pass:
        """The same micro-batch with its texts rewritten and its targets the same, drawn anew in every step."""
        ...


@runtime_checkable
class Adversary(Protocol):
    """Group `adversary`: how a micro-batch is made more difficult to learn from."""

    @property
    def needs_dropout(self) -> bool:
        """Whether it does nothing for a network that drops nothing out."""
        ...

    @property
    def backwards(self) -> float:
        """Forward and backward passes per micro-batch, against one without an adversary."""
        ...

    def drive(self, micro: Pass) -> Outcome:
        """Run the micro-batch forward and backward."""
        ...


class Answers(NamedTuple):
    """What a teacher says of n targets of one term."""

    logits: Tensor
    """float32 [n, K]."""
    pieces: Tensor | None = None
    """int64 [n, K]: the student's outputs that the columns are about; None: all of the student's, in order (of a
    vocabulary: the first K)."""


@dataclass(frozen=True)
class Asked:
    """What a lesson is about, besides the numbers."""

    kind: LabelKind
    """What the answers are: one class (or piece) of several, any number of classes, a number."""
    progress: float
    """Share of the budget that is spent."""


@runtime_checkable
class Lesson(Protocol):
    """One term of the lesson: a `LogitLesson` or a `StateLesson`."""

    def weight_at(self, progress: float) -> float:
        """What the term counts for when `progress` of the budget, from 0 to 1, is spent."""
        ...


@runtime_checkable
class LogitLesson(Lesson, Protocol):
    """A term that compares answers, target by target."""

    def apart(self, student: Tensor, teacher: Answers, asked: Asked) -> Tensor:
        """How far the student's logits float32 [n, C] are from the teacher's answers, summed over the targets; a
        scalar with a gradient for the student. Whatever it gives for two halves of the targets adds up to what it
        gives for all: it is asked in chunks."""
        ...


class Anatomy(NamedTuple):
    """What there is to see of a network's inside, for whoever matches layers."""

    what: str
    """The network's name, for messages."""
    layers: dict[str, int]
    """Number of layers by stack: "layers"; "encoder" and "decoder" of those that have both."""
    width: int
    """Units of a hidden state."""
    heads: int
    """Attention heads; 0 where there is no attention to be seen."""
    embedding: int | None = None
    """Units of what goes into the first layer, where they are not `width`."""


class Attended(NamedTuple):
    """What the self-attention of one layer computed with."""

    query: Tensor
    """[R, A, L, D], as keys and values are: A heads of D units, rotated where positions are rotated in."""
    key: Tensor
    value: Tensor
    scale: float
    """What products of queries and keys are multiplied by."""
    allowed: Tensor | None
    """Who may look at whom: bool [R or 1, A or 1, L, L] (query, key); None: all at all."""
    bias: Tensor | None
    """What is added to the scaled products besides: [R or 1, A or 1, L, L], T5's positions; None: nothing."""


@dataclass(frozen=True)
class States:
    """What was seen inside of a network while it read a batch."""

    hidden: dict[str, list[Tensor]]
    """By stack: [R, L, H] the embeddings, then what each layer gave."""
    attended: dict[str, list[Attended]]
    """By stack, layer by layer; empty unless it was asked for."""
    real: dict[str, Tensor]
    """By stack: bool [R, L], what is not padding."""


@runtime_checkable
class StateLesson(Lesson, Protocol):
    """A term that compares what happens inside of the networks."""

    @property
    def attends(self) -> bool:
        """Whether it looks at attention, too."""
        ...

    def pupil(self, student: Anatomy, teacher: Anatomy) -> Any:
        """An `nn.Module` of (student: States, teacher: States): how far they are apart, summed over real positions,
        a scalar. It owns what is learned for the comparison alone, such as projections. ConfigError if these two
        cannot be compared. Its `shown` are lines for people: what is compared with what."""
        ...


@runtime_checkable
class Distiller(Protocol):
    """Group `distill`: what a student learns from its teacher, besides what the text says."""

    @property
    def lessons(self) -> Mapping[str, Lesson]:
        """The terms by name; none: there is no teacher."""
        ...

    @property
    def teacher_precision(self) -> Precision | None:
        """In which precision the teacher computes; None: float32."""
        ...

    @property
    def control(self) -> bool:
        """Whether `lmctl distill` trains the student without a teacher, too."""
        ...

    @property
    def chunk_bytes(self) -> int:
        """Bytes of one network's logits that are in memory at a time."""
        ...

    def hard_at(self, progress: float) -> float:
        """What the objective's own losses count for when `progress` of the budget is spent."""
        ...


class View(Protocol):
    """What a teacher makes of one micro-batch."""

    def answers(self, term: str, head: str, rows: slice) -> Answers:
        """Its answers to the targets `rows` of a term, which the student gives with its `head`."""
        ...

    @property
    def states(self) -> States:
        """Its inside, if the lessons look at that."""
        ...


class Teacher(Protocol):
    """Who is asked for every micro-batch; alive, or remembered."""

    fingerprints: dict[str, str]
    """What must be the same for a run to go on."""
    anatomy: Anatomy | None
    """What is to be seen of its inside; None if nobody looks there."""

    def look(self, batch: Batch) -> View:
        """Read a micro-batch, on its device. The rows are as the student gets them, no shift on their embeddings."""
        ...


@runtime_checkable
class OptimSpec(Protocol):
    """Group `optim`: the rule that turns gradients into updates."""

    lr: float

    def optimiser(self, network: nn.Module, device: torch.device) -> torch.optim.Optimizer: ...


@runtime_checkable
class Schedule(Protocol):
    """Group `schedule`: the learning rate over the budget."""

    def factor(self, progress: float) -> float:
        """What the peak learning rate is multiplied by when `progress` (above 0, up to 1) of the budget is spent."""
        ...


class Exchange(Protocol):
    """The gradients of one run, on their way from every worker to all of them. A worker is a process, or one of
    several that a single process plays."""

    workers: int
    places: Sequence[int]
    """The numbers, below `workers`, of those that this process is."""
    sent: int
    """Bytes of gradients that one worker sent to the others in the last step."""
    dense: int
    """What it would have sent in float32, uncompressed."""

    def attach(self, wrapped: nn.Module) -> None:
        """Take charge of what `wrapped`, the learner as its processes run it, does with its gradients."""
        ...

    def collect(self, scale: float) -> None:
        """The next of this process's workers has its gradients of the step, each multiplied by the loss `scale`."""
        ...

    def finish(self, step: int) -> None:
        """All workers have theirs: leave the mean in every parameter's `grad`, still multiplied by the scale. `step`
        counts the steps taken before. A gradient that is not finite in any worker is so afterwards in all of them."""
        ...

    def words(self) -> list[str]:
        """What is sent, for people; nothing where gradients go as they are."""
        ...

    def figures(self) -> dict[str, float]:
        """What the record says of the last step, besides the bytes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What this process keeps from step to step."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class GradCompressor(Protocol):
    """Group `compression`: in what form gradients cross the network."""

    def workers(self, world: int, optim: OptimSpec, clip_norm: float | None) -> int:
        """How many workers share the rows of a step in `world` processes; raises a `ConfigError` if a run like that,
        with this optimiser and clipping, cannot use it."""
        ...

    def remarks(self, optim: OptimSpec) -> list[str]:
        """What the user should know beforehand."""
        ...

    def exchange(self, learner: nn.Module, rank: int, world: int, clip_norm: float | None) -> Exchange:
        """The exchange of the gradients of `learner`, in process `rank` of `world`."""
        ...


@runtime_checkable
class Where(Protocol):
    """Group `runner`: on which devices, in how many processes."""

    def world(self) -> int:
        """How many processes this run wants (1: the one that is already here)."""
        ...

    def on_cpu(self) -> bool:
        """Whether the run stays off the GPU."""
        ...


@dataclass(frozen=True)
class Paths:
    """Where the parts of a run directory lie."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.root / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.jsonl"

    @property
    def summary(self) -> Path:
        return self.root / "summary.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def plot(self) -> Path:
        return self.root / "plots" / "loss.png"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"
