"""What is run: every kind of model, mix, precision, compression, adversary, distillation and use, each for a few steps.

A cell is a line or several, run one after the other in the folder of `inputs.py`. Each line is what follows `lmctl`;
one that begins with `kill` is killed after its first checkpoint. A run is written to runs/NAME of its cell unless the
line says otherwise. Cells read the runs of others (`teacher=runs/teacher/bert`) and wait for these.
"""

from __future__ import annotations

STEPS = "batch.size=8 batch.seq_len=32 budget.steps=5 eval.rows=16 log.every=1 runner=cpu"
DOCS = "data=text data.path=docs.txt"
TEXT = f"{DOCS} tokenizer.vocab_size=300"
BERT = "model=bert_tiny model.hidden=32 model.feed_forward=64"
ELECTRA = "model.hidden=32 model.feed_forward=64 model.embedding=24"
GPT = "model=gpt2_tiny model.hidden=32"
MLM = f"train mix=mlm {BERT} {TEXT} {STEPS}"
CLM = f"train mix=clm {GPT} {TEXT} {STEPS}"
SEQ2SEQ = "model=transformer_mt_tiny model.hidden=32 model.feed_forward=64"
MT = f"{SEQ2SEQ} data=numbers data.size=300 tokenizer.vocab_size=300"
TRANSLATE = f"train mix=translate {MT} {STEPS}"
TABLE = f"data=table data.path=rows.tsv data.label=label data.valid_share=0.2 {STEPS}"
ROWS = f"{TABLE} tokenizer.vocab_size=300"
CLASSIFY = f"train mix=classify {BERT} {ROWS}"
PRETRAINED = "model=pretrained init_from=runs/teacher/bert"
LSTM = f"model=lstm_tiny model.hidden=32 tokenizer=word {TEXT} data.valid_share=0.3"
DDP = f"{STEPS.replace('runner=cpu', 'runner=ddp')} runner.processes=2 runner.device=cpu"
PAIR = f"train mix=mlm {BERT} {TEXT} {DDP}"
APART = f"{MLM.replace('runner=cpu', 'runner=diloco')} runner.device=cpu runner.every=2 model.dropout=0.1"
LONG = "budget.steps=12 checkpoint.every=2 eval.every=4"

OF_BERT = "distill teacher=runs/teacher/bert model.hidden=16 model.feed_forward=32 distill.control=false " + STEPS
OF_GPT = f"distill teacher=runs/teacher/gpt2 model=gpt2_tiny model.hidden=16 distill.control=false {STEPS}"
OF_MT = f"distill teacher=runs/teacher/mt model.hidden=16 model.feed_forward=32 distill.control=false {STEPS}"

TEACHERS = {
    "teacher/bert": f"{MLM} model.layers=3 budget.steps=30 optim.lr=3e-3 log.every=10",
    "teacher/gpt2": f"{CLM} budget.steps=30 optim.lr=3e-3 log.every=10",
    "teacher/mt": f"{TRANSLATE} budget.steps=30 optim.lr=3e-3 log.every=10",
    "teacher/classifier": f"{CLASSIFY} budget.steps=30 optim.lr=3e-3 log.every=10",
}
MIXES = {
    "mix/mlm_nsp": f"train mix=mlm_nsp {BERT} data=pydocs tokenizer=wordpiece tokenizer.vocab_size=400 {STEPS} "
    "schedule=linear",
    "mix/mlm_modernbert": "train mix=mlm model=modernbert_tiny model.hidden=32 model.feed_forward=48 "
    f"mix.tasks.corpus.objective.whole_words=true {TEXT} {STEPS} optim=adamw schedule=cosine",
    "mix/mlm_sop": f"train mix=mlm_sop {BERT} {TEXT} {STEPS} optim=sgd optim.momentum=0.9 optim.lr=0.1 schedule=wsd",
    "mix/rtd": f"train mix=rtd model=electra_tiny {ELECTRA} {TEXT} {STEPS}",
    "mix/clm_gpt2": f"train mix=clm {GPT} tokenizer=bpe {TEXT} {STEPS} schedule=constant",
    "mix/clm_llama": f"train mix=clm model=llama_tiny model.hidden=32 model.feed_forward=64 model.key_value_heads=1 "
    f"mix.tasks.corpus.objective.separate_documents=false tokenizer=unigram {TEXT} {STEPS}",
    "mix/clm_stream_lstm": f"train mix=clm_stream {LSTM} {STEPS} optim=sgd optim.momentum=0.5 optim.nesterov=true",
    "mix/clm_stream_gru": "train mix=clm_stream model=gru model.hidden=32 model.weight_drop=0.3 "
    f"model.locked_dropout=true model.embedding_dropout=0.1 tokenizer=char {TEXT} data.valid_share=0.3 {STEPS}",
    "mix/denoise_t5": f"train mix=denoise model=t5_tiny model.hidden=32 model.feed_forward=64 {TEXT} {STEPS}",
    "mix/denoise_bart": f"train mix=denoise mix.tasks.corpus.objective.style=bart {SEQ2SEQ} {TEXT} {STEPS}",
    "mix/translate": f"{TRANSLATE} data.source_language=zh",
    "mix/translate_rnn": "train mix=translate model=rnn_mt_tiny model.hidden=24 model.embedding=16 model.cell=gru "
    "model.attention=luong data=parallel data.source=source.txt data.target=target.txt data.valid_share=0.2 "
    f"tokenizer.vocab_size=300 {STEPS}",
    "mix/classify": f"train mix=classify data=pydocs_topics {BERT} tokenizer.vocab_size=400 {STEPS}",
    "mix/classify_bilstm": f"train mix=classify model=bilstm_tiny model.hidden=24 model.embedding=16 {ROWS}",
    "mix/classify_numbers": f"train mix=classify mix.tasks.classify.objective.labels=number {BERT} data=jsonl "
    f"data.path=numbers.jsonl data.label=label data.valid_share=0.2 tokenizer.vocab_size=300 {STEPS}",
    "mix/classify_classes": f"train mix=classify mix.tasks.classify.objective.labels=classes {BERT} data=jsonl "
    f"data.path=classes.jsonl data.label=label data.valid_share=0.2 tokenizer.vocab_size=300 {STEPS}",
    "mix/pairs": f"train mix=pairs {BERT} {ROWS} data.path=pairs.tsv data.text_b=text_b",
    "mix/multitask": f"train mix=multitask mix.balance=uncertainty mix.conflict_every=2 {BERT} {TEXT} {STEPS}",
    "mix/curriculum": f"train mix=curriculum mix.sampling.unit=tokens {BERT} {TEXT} {STEPS} batch.micro=4",
    "mix/streamed": f"train mix=mlm {BERT} data=hub data.path=hub data.streaming=true data.buffer=40 "
    f"data.valid_share=0.2 tokenizer.vocab_size=300 {STEPS}",
}
HOW = {
    "train/micro_batches": f"{MLM} batch.micro=3 model.dropout=0.1 average=none tracker=none",
    "train/gradient_checkpointing": f"{MLM} gradient_checkpointing=true batch.micro=4",
    "train/muon": f"{MLM} optim=muon optim.layer_decay=0.7 batch.micro=4",
    "train/ema": f"{MLM} average=ema average.decay=0.5 z_loss=1e-3 optim.cautious_updates=true",
    "train/tail": f"{MLM} average=tail average.share=0.5 optim.cautious_decay=true optim.weight_decay=0.3",
    "train/ramps": f"{MLM} batch.ramp=[[0,0.25],[0.5,1]] batch.length_ramp=[[0,0.5],[0.5,1]] "
    "mix.tasks.corpus.objective.mask_rate=[[0,0.3],[1,0.15]]",
    "train/early_stop": f"{MLM} early_stop.patience=1 optim.lr=0.9 budget.steps=30 eval.every=3",
    "train/epochs": f"{CLASSIFY} budget.steps=null budget.epochs=0.5 optim.layer_decay=0.7 clip_norm=null maskings=2",
    "train/two_processes": f"{PAIR} compression=none batch.micro=2",
    "train/fsdp": f"{PAIR.replace('runner=ddp', 'runner=fsdp')} compression=none batch.micro=2",
    "train/two_simulated": f"{PAIR.replace('runner=ddp runner.processes', 'runner=simulated runner.workers')} "
    "compression=none batch.micro=2",
    "train/diloco": f"{APART} runner.processes=2 compression=none",
    "train/diloco_simulated": f"{APART} runner.workers=2 compression=topk_int8",
    "train/two_processes_stream": f"train mix=clm_stream {LSTM} {DDP}",
    "train/pretrained": f"train mix=classify {PRETRAINED} model.freeze=1 model.dropout=0.2 {TABLE}",
    "train/lora": f"train mix=classify {PRETRAINED} model.lora_rank=4 model.lora_dropout=0.1 {TABLE}",
    "train/tokenizer": f"train mix=mlm {BERT} {DOCS} {STEPS} tokenizer=pretrained tokenizer.path=runs/teacher/bert",
    "train/stages": f"train {DOCS} {STEPS} --config-dir conf recipe=two_stages",
    "train/sweep": f"{MLM} -m seed=1,2 optim=adamw8bit model.hidden=64",
}
AUGMENTS = {
    f"augment/{name}": f"{MLM.replace(BERT, 'model=bert_tiny model.hidden=16 model.feed_forward=32')} augment={name}"
    for name in ("none", "char_noise", "shuffle", "span_crop", "token_noise", "word_dropout")
}
AUGMENTS["augment/back_translate"] = (
    f"{CLASSIFY} augment=back_translate augment.there=runs/teacher/mt augment.back=runs/teacher/mt "
    "augment.max_new_tokens=8 model.dropout=0.1"
)
PRECISIONS = {
    "precision/fp32": f"{CLM} precision=fp32",
    "precision/auto": f"{CLM} precision=auto precision.among=[fp32]",
    "precision/bf16": f"{CLM} precision=bf16",
    "precision/bf16_pure": f"{MLM} precision=bf16_pure",
    "precision/bf16_kahan": f"{MLM} precision=bf16_pure precision.rounding=kahan",
    "precision/fp16": f"{CLM} precision=fp16 precision.growth_interval=2",
    "precision/fp8": f"{MLM} precision=fp8 precision.emulate=true",
    "precision/int8": f"{CLM} precision=int8 batch.micro=4",
    "precision/int8_full": f"{MLM} precision=int8_full precision.gradients=bf16 optim=adamw8bit",
    "precision/int8_weights": f"{MLM} precision=int8_weights",
    "precision/int8_lora": f"train mix=mlm {PRETRAINED} model.lora_rank=4 {DOCS} {STEPS} precision=int8_lora",
    "precision/nf4_lora": f"train mix=mlm {PRETRAINED} model.lora_rank=4 {DOCS} {STEPS} precision=nf4_lora "
    "'precision.exclude=[\"*attention*\"]'",
}
COMPRESSIONS = {}
for name in ("bf16", "fp16", "int8", "onebit", "powersgd", "topk", "topk_int8"):
    method = f"compression={name} compression.probe_every=2"
    COMPRESSIONS[f"compression/{name}"] = f"{PAIR} {method}"
    COMPRESSIONS[f"compression/{name}_simulated"] = f"{MLM} {method} compression.simulate_workers=2"
COMPRESSIONS["compression/topk_momentum"] = (
    f"{PAIR} compression=topk compression.momentum=0.9 compression.local_clip=true compression.warmup_steps=3 "
    "optim=sgd optim.lr=0.1 precision=fp16"
)
ADVERSARIES = {
    "adversary/none": f"{CLASSIFY} adversary=none",
    "adversary/fgm": f"{CLASSIFY} adversary=fgm batch.micro=4",
    "adversary/freelb": f"{MLM} adversary=freelb",
    "adversary/noise": f"{CLASSIFY} adversary=noise",
    "adversary/pgd": f"{CLM} adversary=pgd precision=fp16",
    "adversary/rdrop": f"{CLASSIFY} adversary=rdrop",
    "adversary/smart": f"{TRANSLATE} adversary=smart",
    "adversary/two_processes": f"{PAIR} adversary=fgm batch.micro=2 compression=int8",
}
DISTILLATIONS = {
    "distill/logits": f"{OF_BERT} distill=logits",
    "distill/hidden": f"{OF_BERT} distill=[logits,hidden] distill.terms.logits.divergence=js batch.micro=4",
    "distill/attention": f"{OF_BERT} distill=attention distill.terms.attention.values=true",
    "distill/minilm": f"{OF_BERT} distill=minilm precision=bf16",
    "distill/tinybert": f"{OF_BERT} distill=tinybert adversary=fgm",
    "distill/on_policy": f"{OF_GPT} distill=on_policy",
    "distill/on_policy_translation": f"{OF_MT} distill=on_policy",
    "distill/sequence": f"{OF_GPT} distill=sequence distill.terms.sequence.length=24 distill.terms.sequence.prompt=8",
    "distill/sequence_translation": f"{OF_MT} distill=[sequence,logits] distill.terms.sequence.beams=2 "
    "distill.terms.sequence.max_new_tokens=6",
    "distill/cached": f"{OF_BERT} distill=logits teacher_cache=auto maskings=2 teacher_cache_k=20",
    "distill/several": f"{OF_GPT.replace('runs/teacher/gpt2', '[runs/teacher/gpt2,runs/mix/clm_gpt2]')} distill=logits",
    "distill/int8_teacher": f"{OF_BERT} distill=logits distill.teacher_precision=int8_weights",
    "distill/from_teacher": "distill teacher=runs/teacher/bert model=teacher_layers student.from_teacher=uniform "
    f"model.layers=2 distill=hidden distill.control=false {STEPS}",
    "distill/control": f"{OF_BERT} distill=logits distill.control=true",
    "distill/classifier": "distill teacher=runs/teacher/classifier model=bilstm_tiny model.hidden=24 "
    f"model.embedding=16 distill.control=false {STEPS}",
    "distill/none": f"{MLM} distill=none",
    "distill/two_processes": f"{OF_BERT.replace('runner=cpu', 'runner=ddp')} runner.processes=2 runner.device=cpu",
}
RESUMED = {
    "resume/longer": [
        f"{MLM} budget.steps=3 run_dir=runs/resume/longer",
        "train resume=auto run_dir=runs/resume/longer budget.steps=7",
    ],
    "resume/killed": [
        f"kill {MLM} {LONG} precision=fp16 budget.steps=40 run_dir=runs/resume/killed",
        "train resume=auto run_dir=runs/resume/killed",
    ],
    "resume/stream": [
        f"kill {MIXES['mix/clm_stream_lstm']} {LONG} budget.steps=40 run_dir=runs/resume/stream",
        "train resume=auto run_dir=runs/resume/stream",
    ],
    "resume/multitask": [
        f"{MIXES['mix/multitask']} {LONG} budget.steps=6 run_dir=runs/resume/multitask",
        "train resume=runs/resume/multitask/checkpoints/step-00000004",
    ],
    "resume/compressed": [
        f"{COMPRESSIONS['compression/topk_int8']} budget.steps=4 run_dir=runs/resume/compressed",
        "train resume=auto run_dir=runs/resume/compressed budget.steps=6",
    ],
}
USES = {
    "use/generate": [
        "generate model_path=runs/teacher/bert file=masks.txt runner=cpu",
        "generate model_path=runs/teacher/gpt2 file=prompts.txt max_new_tokens=12 temperature=0.8 seed=3 runner=cpu",
        "generate model_path=runs/teacher/gpt2 file=prompts.txt max_new_tokens=12 beams=3 runner=cpu",
        "generate model_path=runs/mix/clm_stream_lstm file=prompts.txt max_new_tokens=12 runner=cpu",
    ],
    "use/translate": [
        "translate model_path=runs/teacher/mt file=words.txt beams=3 runner=cpu",
        "translate model_path=runs/mix/translate_rnn file=lines.txt beams=2 runner=cpu",
    ],
    "use/score": [
        "score model_path=runs/teacher/gpt2 file=lines.txt format=json runner=cpu",
        "score model_path=runs/teacher/bert file=lines.txt runner=cpu",
        "score model_path=runs/teacher/gpt2 file=minimal.tsv format=json runner=cpu",
        "score model_path=runs/teacher/gpt2 file=nbest.jsonl dev=nbest.jsonl case=lower runner=cpu",
    ],
    "use/predict": [
        "predict model_path=runs/teacher/classifier file=rows.tsv format=json runner=cpu",
        "predict model_path=runs/mix/classify_numbers file=numbers.jsonl format=csv runner=cpu",
    ],
    "use/eval": [
        "eval model_path=runs/teacher/bert out=OUT runner=cpu",
        "eval model_path=runs/teacher/gpt2 suite=perplexity data=text data.path=docs.txt out=OUT runner=cpu",
        "eval model_path=runs/mix/clm_stream_lstm out=OUT runner=cpu",
        "eval model_path=runs/teacher/classifier out=OUT runner=cpu",
        "eval model_path=runs/teacher/mt rows=8 beams=2 out=OUT runner=cpu",
        "eval model_path=runs/teacher/gpt2 suite=minimal_pairs file=minimal.tsv out=OUT runner=cpu",
        "eval model_path=runs/teacher/gpt2 suite=nbest file=nbest.jsonl dev=nbest.jsonl out=OUT runner=cpu",
        "eval model_path=runs/mix/multitask suite=loss rows=16 out=OUT runner=cpu",
    ],
    "use/robustness": ["eval model_path=runs/teacher/classifier suite=robustness out=OUT runner=cpu"],
    "use/numerics": [
        "eval model_path=runs/teacher/bert precision=bf16 out=OUT runner=cpu",
        "eval model_path=runs/teacher/bert quantize=int8_dynamic out=OUT runner=cpu",
        "eval model_path=runs/teacher/classifier quantize=int8_weight_only out=OUT runner=cpu",
    ],
}


def words_of(line: str) -> str:
    """Without the verb."""
    return line.partition(" ")[2]


LOOKS = {
    "look/peek": [
        f"peek mix=mlm_nsp {BERT} {TEXT} batch.seq_len=32",
        f"peek mix=translate {MT} batch.seq_len=32 format=json",
    ],
    "look/prepare": [f"prepare mix=clm {GPT} {TEXT} batch.seq_len=32"],
    "plan/cpu": [
        f"plan {words_of(MLM)} out=OUT",
        f"plan {words_of(PAIR)} compression=topk_int8 adversary=fgm out=OUT",
        (
            f"plan mix=clm {GPT} {DOCS} {STEPS} teacher=runs/teacher/gpt2 distill=logits precision=int8_full "
            "optim=adamw8bit out=OUT"
        ),
        (
            f"plan {words_of(MIXES['mix/multitask'])} mix.conflict_every=null gradient_checkpointing=true "
            "batch.micro=4 out=OUT"
        ),
    ],
    "plan/gpu": [
        f"plan {words_of(MLM)} runner=gpu gpu=h100 precision=fp8 out=OUT",
        f"plan {words_of(CLM)} runner=gpu gpu=a100 precision=tf32 out=OUT",
        (
            f"plan mix=translate {MT} {DDP} runner.processes=4 runner.device=auto gpu=l4 gpus=4 precision=bf16 "
            "compression=int8 out=OUT"
        ),
    ],
}

_GROUPS = (TEACHERS, MIXES, HOW, AUGMENTS, PRECISIONS, COMPRESSIONS, ADVERSARIES, DISTILLATIONS, RESUMED, USES, LOOKS)
CELLS: dict[str, list[str]] = {
    name: [lines] if isinstance(lines, str) else lines for group in _GROUPS for name, lines in group.items()
}
"""Every cell by name, none before those it reads."""
