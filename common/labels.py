"""The label of tokens that are not learned.

from common.labels import IGNORE_INDEX
"""

# What torch's cross entropy leaves out. https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
IGNORE_INDEX = -100
