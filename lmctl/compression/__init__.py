"""Group `compression`: gradient compression between data-parallel workers (quantisation, top-k, low rank)."""
