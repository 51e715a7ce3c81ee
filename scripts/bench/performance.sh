#!/bin/sh
# Every table of docs/performance.md, one after the other; words are handed to each benchmark:
#
#   scripts/bench/performance.sh                        some hours on two cores; tables on standard output
#   scripts/bench/performance.sh --write                ... and in docs/performance.md
#   scripts/bench/performance.sh --write --isa AVX2     as on a lesser CPU, what the page has places for
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

case " $* " in
*" --isa "*) ;;
*)
    "$python" "$here/mlm.py" "$@"
    "$python" "$here/mlm.py" --model bert_base --precision bf16 --rows 8 --steps 12 "$@"
    "$python" "$here/clm.py" "$@"
    "$python" "$here/clm.py" --precision bf16 "$@"
    "$python" "$here/translate.py" "$@"
    "$python" "$here/distill.py" "$@"
    "$python" "$here/precisions.py" --model bert_base --rows 8 --steps 12 "$@"
    "$python" "$here/rotary.py" "$@"
    "$python" "$here/starting.py" "$@"
    "$python" "$here/scaling.py" "$@"
    ;;
esac
"$python" "$here/precisions.py" --model bert_small "$@"
