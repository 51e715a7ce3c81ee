"""Group `augment`: how a text is changed before it is learnt from, drawn anew in every epoch."""
