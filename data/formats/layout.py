"""A question and its answer, in the prompt that `--prompt_format` asks for.

    >>> pair = {"input": "Question: 1 + 2?\\nAnswer: ", "asked": "1 + 2?", "output": "3"}
    >>> lay_out(pair, "alpaca")
    {'input': 'Question: 1 + 2?\\nAnswer: ', 'output': '3'}
    >>> lay_out(pair, "plain")
    {'input': '1 + 2?\\n', 'output': '3'}
    >>> [(turn["role"], turn["content"]) for turn in lay_out(pair, "chat")["messages"]]
    [('user', '1 + 2?'), ('assistant', '3')]

Formatters give `input`, the prompt that their format is published with, and, where that is more than what is asked,
`asked` beside it.
"""

# `--prompt_format` has these values; beside each, the words that follow "5 questions" where it is used.
LAYOUTS = {
    "alpaca": "in the prompt of their format",
    "chat": "as turns of the chat template",
    "plain": "with nothing around them",
}


def has_prompt(example: dict) -> bool:
    """Return whether `--prompt_format` decides how an example is laid out: not of conversations and whole texts."""
    return "messages" not in example and bool(example["input"].strip())


def lay_out(example: dict, prompt_format: str) -> dict:
    """Return the example as it is trained: a pair {"input", "output"}, or a conversation.

    Args:
        example: what a formatter made of a record.
        prompt_format: "alpaca", the prompt of the example's format; "chat", a turn of the user's and one of the
            assistant's, for a chat template; "plain", what is asked and nothing else, ended by a line break where the
            format has words of its own in between.
    """
    if not has_prompt(example):
        return example
    prompt, answer = example["input"], example["output"]
    if prompt_format == "chat":
        question = {"role": "user", "content": example.get("asked", prompt).strip(), "supervised": False}
        return {"messages": [question, {"role": "assistant", "content": answer.strip(), "supervised": True}]}
    if prompt_format == "plain" and "asked" in example:
        prompt = f"{example['asked']}\n"
    return {"input": prompt, "output": answer}
