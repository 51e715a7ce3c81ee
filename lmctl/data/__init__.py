"""Group `data`: where documents come from, how they are read, cut into sentences and split."""
