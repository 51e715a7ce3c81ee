"""Cost estimation of a run before it starts: `lmctl plan`.

known_data.py      what is known without reading the data: tokenizer and token stores, or synthetic stand-ins
rows.py            sample batches of the shape that training will have, made by the objectives themselves
validate.py        all checks that `train` makes before its first step
rehearsal.py       one optimiser step on fake tensors (fake_tensors.py, fake_processes.py, sharding.py), counted by
                   memory_tracker.py
memory.py, communication.py, budget.py    peak memory, network traffic, steps and tokens
measure.py         a few real steps, if requested
estimate.py        all of it, for one plan; show.py prints it
"""
