"""Training: data preparation, optimiser steps, validation, checkpoints, resuming, and the record of a run."""
