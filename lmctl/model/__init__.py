"""Group `model`: architectures and their sizes. A spec imports no torch; the network behind it does."""
