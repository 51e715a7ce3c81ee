"""Group `augment`: data augmentation of training text, drawn anew in every epoch."""
