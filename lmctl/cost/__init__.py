"""What a run costs, before it runs: `lmctl plan`.

known_data.py      what can be known without reading the data: the tokenizer's size, or a stand-in of that size
rows.py            rows of the shape that training will have, made by the objectives themselves
validate.py        every refusal that `train` would make before its first step
rehearsal.py       one optimiser step on tensors without contents (fake_tensors.py), counted by memory_tracker.py
memory.py, communication.py, budget.py    the figures
measure.py         a few real steps, if they are asked for
estimate.py        all of it, for one plan; show.py prints it
"""
