"""Group `mix`: which tasks a run trains, each an objective on a data source with a weight."""
