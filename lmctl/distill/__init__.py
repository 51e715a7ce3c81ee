"""Group `distill`: knowledge distillation from a teacher model to the student."""
