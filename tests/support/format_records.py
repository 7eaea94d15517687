"""A record of each format with the row that it becomes, and how tests write rows down."""

from data.formats.fields import SkipRow
from data.formats.layout import lay_out

PROMPT_WITH_INPUT = """\
Below is an instruction that describes a task, paired with an input that provides further context. \
Write a response that appropriately completes the request.

### Instruction:
Add.

### Input:
1 2

### Response: """
PROMPT_WITHOUT_INPUT = """\
Below is an instruction that describes a task. Write a response that appropriately completes the request.

### Instruction:
Add.

### Response: """
# As DataCollatorForNI of Tk-Instruct writes it with definition and two positive examples; every line that does not end
# in punctuation gets a full stop.
TASK_PROMPT = """\
Definition: Add the numbers.

 Positive Example 1 -
Input: 1 2.
 Output: 3.

 Positive Example 2 -
Input: 2 2?
 Output: 4!

Now complete the following example -
Input: 5 6.
Output: """
TASK = {
    "Categories": ["Arithmetic"],
    "Definition": ["Add the numbers\n"],
    "Positive Examples": [
        {"input": " 1 2\n", "output": "3", "explanation": "1 + 2 = 3"},
        {"input": "2 2?", "output": "4!", "explanation": "2 + 2 = 4"},
        {"input": "3 3", "output": "6", "explanation": "never shown"},
    ],
    "Negative Examples": [{"input": "1 2", "output": "12"}],
    "Instances": [{"id": "a", "input": "\n5 6 ", "output": ["11", "eleven"]}],
}
HI = [{"role": "user", "content": "hi", "supervised": False}]
HISTORY = [["Add 1 1.", "2"], ["Add 2 2.", "4"]]
HELLO = [{"role": "assistant", "content": "hello", "supervised": True}]

# format, record, what it becomes
RECORDS = [
    (
        "super-natural-instructions",
        TASK,
        [{"input": TASK_PROMPT, "output": "11"}, {"input": TASK_PROMPT, "output": "eleven"}],
    ),
    (
        "natural-instructions",
        {"task_name": "t", "id": "t-1", "definition": "Add.", "inputs": "5 6", "targets": "11"},
        {
            "input": "Definition: Add.\n\nNow complete the following example -\nInput: 5 6.\nOutput: ",
            "output": "11",
        },
    ),
    (
        "unnatural-instructions-full",
        {
            "instruction": "Add.",
            "instances": [{"instruction_with_input": "Add 1 2.", "input": "1 2", "output": "3"}],
            "reformulations": [{"instruction_with_input": "What is 1 + 2?", "output": "3"}],
        },
        [{"input": "Add 1 2.", "output": "3"}, {"input": "What is 1 + 2?", "output": "3"}],
    ),
    (
        "unnatural-instructions",
        {"instruction": "Add.", "instances": [{"instruction_with_input": "Add 1 2.", "input": "1 2", "output": "3"}]},
        [{"input": "Add 1 2.", "output": "3"}],
    ),
    (
        "seed-tasks",
        {"instruction": "Add.", "instances": [{"input": "1 2", "output": "3"}, {"input": "", "output": "What?"}]},
        [{"input": PROMPT_WITH_INPUT, "output": "3"}, {"input": PROMPT_WITHOUT_INPUT, "output": "What?"}],
    ),
    (
        "sharegpt-preference",
        {
            "conversations": [{"from": "human", "value": "hi"}],
            "chosen": {"from": "gpt", "value": "hello"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "messages-preference",
        {
            "messages": [{"role": "user", "content": "hi"}],
            "chosen": {"role": "assistant", "content": "hello"},
            "rejected": {"role": "assistant", "content": "no"},
        },
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "sharegpt",
        {"id": 1, "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]},
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], "tools": "[{}]"},
        {"messages": HI + HELLO, "tools": [{}]},
    ),
    (
        "alpaca",
        {"instruction": "Add.", "input": "1 2", "output": "3"},
        {"input": PROMPT_WITH_INPUT, "output": "3"},
    ),
    (
        "dolly",
        {"instruction": "Add.", "context": "1 2", "response": "3", "category": "closed_qa"},
        {"input": PROMPT_WITH_INPUT, "output": "3"},
    ),
    (
        "input-output",
        {"input": "1 + 2 =", "output": " 3"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "self-instruct",
        {"prompt": "1 + 2 =", "completion": " 3<|endoftext|>"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "prompt-target",
        {"prompt": "Add.\n\nOutput:", "instruction": "Add.", "input": "", "response": " 4", "target": "3"},
        {"input": "Add.\n\nOutput:", "output": "3"},
    ),
    (
        "flan",
        {"inputs": "1 + 2 =", "targets": "3", "_task_name": "math"},
        {"input": "1 + 2 =", "output": "3"},
    ),
    (
        "question-answer",
        {"question": "What is {1 + 2}?", "answer": "It is 3.\n#### 3"},
        {"input": "Question: What is {1 + 2}?\nAnswer: ", "output": "It is 3.\n#### 3"},
    ),
    (
        "alpaca-preference",
        {"instruction": "Add.", "input": "1 2", "chosen": "3", "rejected": "4"},
        {"input": PROMPT_WITH_INPUT, "output": "3"},
    ),
    (
        "preference",
        {"prompt": "1 + 2 =", "chosen": " 3", "rejected": " 4"},
        {"input": "1 + 2 =", "output": " 3"},
    ),
    (
        "question-preference",
        {"system": "", "question": "hi", "chosen": "hello", "rejected": "no"},
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "input-preference",
        {"input": "hi", "chosen": "hello", "rejected": "no"},
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "hh-rlhf",
        {"chosen": "\n\nHuman: hi\n\nAssistant: hello", "rejected": "\n\nHuman: hi\n\nAssistant: no"},
        {"input": "", "output": "\n\nHuman: hi\n\nAssistant: hello"},
    ),
    (
        "implicit-preference",
        {
            "chosen": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
            "rejected": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "no"}],
        },
        {"messages": HI + HELLO, "tools": None},
    ),
    (
        "chip2",
        {"text": "<human>: 1 + 2?\n<bot>: It is 3.", "metadata": ""},
        {"input": "1 + 2?", "output": "It is 3."},
    ),
    (
        "oasst1",
        {"text": "### Human: hi### Assistant: hello"},
        {"input": "", "output": "### Human: hi### Assistant: hello"},
    ),
    (
        "text",
        {"text": "It was a bright cold day in April.", "url": "x"},
        {"input": "", "output": "It was a bright cold day in April."},
    ),
]
RECORD = {name: record for name, record, _ in RECORDS}


def shown(made):
    """What `convert` returned, each SkipRow as its reason."""
    return [str(one) if isinstance(one, SkipRow) else one for one in made]


def published(made):
    """What a formatter made of a record, in the prompt that its format is published with."""
    return [lay_out(row, "alpaca") for row in made] if isinstance(made, list) else lay_out(made, "alpaca")
