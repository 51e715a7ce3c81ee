"""Group `data`: sources of documents and labelled or parallel rows: reading, sentence splitting, held-out splits."""
