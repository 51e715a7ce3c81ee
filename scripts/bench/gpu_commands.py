"""The commands that gpu_cells.py runs."""

from __future__ import annotations

SHORT = "budget.steps=40 eval.rows=32 eval.every=20 log.every=5 checkpoint.every=20"
LONG = "budget.steps=100 eval.rows=32 eval.every=50 log.every=5 checkpoint.every=50 resume=auto"
PLAIN = "model.dropout=0 model.attention_dropout=0"
PRE = "model=pretrained tokenizer=pretrained tokenizer.path=runs/fp32/model init_from=runs/fp32"

TRAINED = {
    # precision, on one model and one text
    "fp32": "mix=mlm",
    "tf32": "mix=mlm precision=tf32",
    "bf16": "mix=mlm precision=bf16",
    "fp16": "mix=mlm precision=fp16",
    "fp8": "mix=mlm precision=fp8",
    "fp8, row": "mix=mlm precision=fp8 precision.scale=row",
    "int8": "mix=mlm precision=int8",
    "int8, pow2, bf16": "mix=mlm precision=int8 precision.scale=pow2 precision.float_products=bf16",
    "int8_weights": "mix=mlm precision=int8_weights",
    "int8_full": "mix=mlm precision=int8_full",
    "int8_full, bf16 gradients, adamw8bit": "mix=mlm precision=int8_full precision.gradients=bf16 optim=adamw8bit",
    "bf16_pure": "mix=mlm precision=bf16_pure",
    "bf16_pure, kahan": "mix=mlm precision=bf16_pure precision.rounding=kahan",
    "int8_lora": f"mix=mlm precision=int8_lora {PRE} model.lora_rank=8",
    "nf4_lora": f"mix=mlm precision=nf4_lora {PRE} model.lora_rank=8",
    "adamw8bit": "mix=mlm optim=adamw8bit",
    "adamw8bit, paged": "mix=mlm optim=adamw8bit optim.paged=true",
    "sgd": "mix=mlm optim=sgd",
    "compiled": "mix=mlm precision=bf16 compile=true",
    # precision on other architectures
    "gpt2, fp8": "mix=clm precision=fp8",
    "gpt2, int8_full": "mix=clm precision=int8_full",
    "llama, fp8, row": "mix=clm model=llama_tiny precision=fp8 precision.scale=row",
    "llama, bf16_pure": "mix=clm model=llama_tiny precision=bf16_pure",
    "t5, fp16": "mix=denoise precision=fp16",
    "t5, int8_full": "mix=denoise precision=int8_full",
    "transformer_mt, int8": "mix=translate precision=int8",
    "lstm, bf16": "mix=clm_stream precision=bf16",
    "lstm, tf32": "mix=clm_stream precision=tf32",
    "lstm_awd, fp16": "mix=clm_stream model=lstm_awd precision=fp16",
    "rnn_mt, int8": "mix=translate model=rnn_mt_tiny precision=int8",
    # families and mixes
    "mlm_nsp": "",
    "mlm_sop": "mix=mlm_sop",
    "modernbert": "mix=mlm model=modernbert_tiny",
    "gpt2": "mix=clm",
    "llama": "mix=clm model=llama_tiny",
    "lstm": "mix=clm_stream",
    "gru": "mix=clm_stream model=gru",
    "t5": "mix=denoise",
    "transformer_mt": "mix=translate",
    "rnn_mt": "mix=translate model=rnn_mt_tiny",
    "bilstm": "mix=classify model=bilstm_tiny",
    "classify": "mix=classify",
    "gpt2, classify": "mix=classify model=gpt2_tiny",
    "multitask, uncertainty, conflict": "mix=multitask mix.balance=uncertainty mix.conflict_every=10",
    "lstm, conflict": "mix=clm_stream mix.conflict_every=10",
    "curriculum": "mix=curriculum",
    "fine-tuned": "mix=classify init_from=runs/fp32 optim.layer_decay=0.8",
    # distillation
    "distill": "distill teacher=runs/fp32 distill.control=true",
    "distill, logits and hidden": "distill teacher=runs/fp32 distill=[logits,hidden] distill.control=false",
    "distill, attention": "distill teacher=runs/fp32 distill=attention distill.control=false",
    "distill, minilm": "distill teacher=runs/fp32 distill=minilm distill.control=false precision=bf16",
    "distill, tinybert": "distill teacher=runs/fp32 distill=tinybert distill.control=false",
    "distill, cached": "distill teacher=runs/fp32 teacher_cache=auto maskings=2 distill.control=false",
    "distill, int8 teacher": "distill teacher=runs/fp32 distill.teacher_precision=int8_weights distill.control=false",
    "distill, sequence": "distill teacher=runs/transformer_mt distill=sequence distill.control=false",
    "distill, on_policy": "distill teacher=runs/gpt2 distill=on_policy distill.control=false",
    "distill, lstm": "distill teacher=runs/gpt2 model=lstm_tiny distill.control=false",
    # adversaries
    "fgm": "mix=classify adversary=fgm",
    "pgd": "mix=classify adversary=pgd precision=bf16",
    "freelb": "mix=classify adversary=freelb precision=fp16",
    "smart": "mix=translate adversary=smart",
    "rdrop": "mix=classify adversary=rdrop",
    "noise": "mix=classify adversary=noise",
    "lstm, fgm": "mix=clm_stream adversary=fgm",
    # compression
    "topk_int8": "mix=mlm compression=topk_int8 compression.simulate_workers=4",
    "powersgd": "mix=mlm compression=powersgd compression.simulate_workers=4",
    "onebit": "mix=mlm compression=onebit compression.simulate_workers=2 precision=bf16",
    # loop
    "accumulated": f"mix=mlm {PLAIN} batch.micro=2",
    "checkpointing": f"mix=mlm {PLAIN} gradient_checkpointing=true",
    "gpt2, checkpointing": "mix=clm gradient_checkpointing=true precision=bf16",
    "t5, checkpointing": "mix=denoise gradient_checkpointing=true",
    "without dropout": f"mix=mlm {PLAIN}",
    "without dropout, CPU": f"mix=mlm {PLAIN} runner=cpu",
    "ddp of one": "mix=mlm runner=ddp runner.processes=1",
}
"""Words of `lmctl train`, or of the verb they begin with."""
RESUMED = {
    "mlm_nsp": "",
    "gpt2, bf16": "mix=clm precision=bf16",
    "modernbert": "mix=mlm model=modernbert_tiny",
    "t5": "mix=denoise",
    "lstm": "mix=clm_stream",
    "transformer_mt, fp16": "mix=translate precision=fp16",
    "rnn_mt": "mix=translate model=rnn_mt_tiny",
    "classify, freelb": "mix=classify adversary=freelb",
    "multitask, uncertainty": "mix=multitask mix.balance=uncertainty",
    "int8_full, adamw8bit": "mix=mlm precision=int8_full optim=adamw8bit",
    "bf16_pure, kahan": "mix=mlm precision=bf16_pure precision.rounding=kahan",
    "topk_int8": "mix=mlm compression=topk_int8 compression.simulate_workers=4",
    "distill, cached": "distill teacher=runs/fp32 teacher_cache=auto maskings=2 distill.control=false",
}
"""Trained undisturbed, and again, stopped by SIGTERM and resumed."""

PLANNED = {
    "bert_tiny": "mix=mlm",
    "bert_base, 32 x 512": "mix=mlm model=bert_base batch.size=32 batch.seq_len=512",
    "bert_base, 32 x 512, bf16": "mix=mlm model=bert_base batch.size=32 batch.seq_len=512 precision=bf16",
    "bert_base, 32 x 512, checkpointing": "mix=mlm model=bert_base batch.size=32 batch.seq_len=512 precision=bf16 "
    "gradient_checkpointing=true",
    "bert_base, 32 x 128, int8_full": "mix=mlm model=bert_base batch.size=32 precision=int8_full",
    "bert_base, 32 x 128, fp8": "mix=mlm model=bert_base batch.size=32 precision=fp8",
    "bert_base, 32 x 128, bf16_pure, adamw8bit": "mix=mlm model=bert_base batch.size=32 precision=bf16_pure "
    "optim=adamw8bit",
    "modernbert_base, 16 x 256, bf16": "mix=mlm model=modernbert_base batch.size=16 batch.seq_len=256 precision=bf16",
    "gpt2_small, 8 x 1024, bf16": "mix=clm model=gpt2_small batch.size=8 batch.seq_len=1024 precision=bf16",
    "llama_base, 8 x 512, bf16": "mix=clm model=llama_base batch.size=8 batch.seq_len=512 precision=bf16",
    "t5_base, 8 x 256": "mix=denoise model=t5_base batch.size=8 batch.seq_len=256",
    "transformer_mt_base": "mix=translate model=transformer_mt_base batch.size=64",
    "lstm_medium": "mix=clm_stream model=lstm_medium batch.size=32",
    "classify, freelb": "mix=classify model=bert_base adversary=freelb batch.size=16",
}
"""Planned, trained for some steps, and compared."""

USED = {
    "eval": "eval model_path=runs/fp32 rows=8",
    "eval, int8_dynamic": "eval model_path=runs/fp32 suite=loss rows=16 quantize=int8_dynamic out=dynamic.json",
    "eval, int8_weight_only": "eval model_path=runs/gpt2 quantize=int8_weight_only out=weight_only.json",
    "eval, bf16": "eval model_path=runs/gpt2 precision=bf16 out=bf16.json",
    "eval, fp8": "eval model_path=runs/fp32 suite=loss rows=16 precision=fp8 out=fp8.json",
    "eval, nf4": "eval model_path=runs/fp32 suite=loss rows=16 precision=nf4_lora out=nf4.json",
    "eval, robustness": "eval model_path=runs/classify suite=robustness rows=32",
    "eval, translation": "eval model_path=runs/transformer_mt rows=16",
    "eval, lstm": "eval model_path=runs/lstm",
    "generate, masks": "generate model_path=runs/fp32 'prompt=The [MASK] statement'",
    "generate, greedy": "generate model_path=runs/gpt2 'prompt=The file' max_new_tokens=16",
    "generate, greedy, CPU": "generate model_path=runs/gpt2 'prompt=The file' max_new_tokens=16 runner=cpu",
    "generate, drawn": "generate model_path=runs/llama 'prompt=The file' do_sample=true top_p=0.9 max_new_tokens=16",
    "generate, beams": "generate model_path=runs/lstm 'prompt=the file' beams=3 max_new_tokens=16",
    "translate": "translate model_path=runs/transformer_mt < lines.txt",
    "translate, rnn": "translate model_path=runs/rnn_mt < lines.txt",
    "score": "score model_path=runs/gpt2 format=json < lines.txt",
    "score, CPU": "score model_path=runs/gpt2 format=json runner=cpu < lines.txt",
    "score, masks": "score model_path=runs/fp32 format=json < lines.txt",
    "predict": "predict model_path=runs/classify format=json < lines.txt",
    "predict, CPU": "predict model_path=runs/classify format=json runner=cpu < lines.txt",
}
LINES = "one hundred and five\nforty two\nseven thousand three hundred\nthe file is opened for reading\n"
