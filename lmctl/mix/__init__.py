"""Group `mix`: multi-task training, a weighted mix of tasks, each an objective on a data source."""
