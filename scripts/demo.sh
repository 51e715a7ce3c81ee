#!/bin/sh
# Train a small BERT on text that comes with Python, in a couple of minutes, without downloading data or models.
#
#   ./scripts/demo.sh                        the defaults of `lmctl train`, in a fresh run directory
#   ./scripts/demo.sh precision=bf16         anything `lmctl train` understands
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
"$root/scripts/setup.sh"

# A run directory is never overwritten, so each call gets a name of its own, unless the caller gives one.
case " $* " in
    *" name="* | *" run_dir="* | *" resume="* | *" -h "* | *" --help "*) ;;
    *) set -- "name=demo-$(date +%Y%m%d-%H%M%S)" "$@" ;;
esac
exec "$root/.venv/bin/lmctl" train "$@"
