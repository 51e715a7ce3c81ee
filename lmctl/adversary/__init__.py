"""Group `adversary`: adversarial training and consistency regularisation, per micro-batch."""
