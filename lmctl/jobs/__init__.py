"""Jobs: whole runs as processes of their own (sweeps, stages, the baseline of a distilled student)."""
