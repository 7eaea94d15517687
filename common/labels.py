"""What the collator puts into a batch and the loss, generation and predictions read: names and labels they share."""

# What torch's cross entropy leaves out. https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
IGNORE_INDEX = -100

LAYOUT = "layout"  # which rows the tokens of a sequence are of; see `data.batches.shared`
ROWS = "rows"  # where the tokens of each row stand in a sequence; for checks, no model is given it
PROMPT = "prompt_"  # before the names of the left-padded prompts that generation starts from
