"""Group `runner`: devices, and number of data-parallel workers."""
