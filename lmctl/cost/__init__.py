"""What a run costs, before it runs: `lmctl plan`.

known.py       what can be known without reading the data: the tokenizer's size, or a stand-in of that size
rows.py        rows of the shape that training will have, made by the objectives themselves
legal.py       every refusal that `train` would make before its first step
rehearse.py    one optimiser step on tensors that have shapes and no contents (paper.py), by the runner itself with
               stand-ins around it (stage.py); live.py counts their bytes
memory.py, wire.py, budget.py    the figures
measure.py     a few real steps, if they are asked for
estimate.py    all of it, for one plan; show.py prints it
"""
