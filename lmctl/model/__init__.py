"""Group `model`: architectures and their sizes. A spec is light; the network behind it imports torch."""
