"""The label of tokens that are not learned, which the collator, the loss and the predictions share."""

# What torch's cross entropy leaves out. https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
IGNORE_INDEX = -100
