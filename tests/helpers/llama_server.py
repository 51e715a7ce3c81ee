"""A server of llama.cpp in a process of its own, which may abort: `llama_server.py FILE [embed]`. It prints its
address, and ends with its standard input."""

import sys

import xllamacpp

if __name__ == "__main__":
    settings = xllamacpp.CommonParams()
    settings.model.path = sys.argv[1]
    settings.n_ctx, settings.warmup, settings.verbosity = 64, False, 0
    if "embed" in sys.argv:
        settings.embedding = True
        settings.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_NONE
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    sys.stdin.read()
