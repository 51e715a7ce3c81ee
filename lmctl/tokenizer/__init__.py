"""Group `tokenizer`: how text becomes pieces, trained from the text of the run or taken from an earlier one."""
