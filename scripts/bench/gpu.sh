#!/bin/sh
# Does lmctl do on this machine's GPU what it does on a CPU, and how fast is it there? In less than 12 minutes:
#
#   scripts/bench/gpu.sh DIR                 some hundred commands, many at a time, then lmctl against transformers.Trainer
#   PYTHON=python3 scripts/bench/gpu.sh DIR  with another Python than .venv/bin/python
#
# Tables are printed and left in DIR: cells.md, cells.log (what every command said), cells.json, speed.md, speed.json.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
out=${1:?"usage: scripts/bench/gpu.sh DIR"}
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false

status=0
"$python" "$here/gpu_cells.py" --out "$out" --seconds 450 || status=$?
timeout -s INT 240 "$python" "$here/gpu_speed.py" --out "$out" --without compiled --steps 24 --warmup 6 || status=$?
exit "$status"
