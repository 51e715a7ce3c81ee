"""Group `distill`: what a student learns from a teacher."""
