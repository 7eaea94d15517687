"""Data as peers write it, through the command line: what the preview shows as learned, and what it says of the rest."""

import json

import pytest

import qlora

ASK = {"role": "user", "content": "Say a colour."}
BLUE = {"role": "assistant", "content": "Blue."}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"id": "x", "type": "function", "function": {"name": "now"}}],
}
CHAT = "### Human: Say a colour.↵\n### Assistant:⟦ Blue.</s>·1·⟧"
# What it is: rows of the file, how the first row is shown, what the report says.
FILES = {
    "kto": (
        [
            {"prompt": "A colour:", "completion": f" {word}", "label": good}
            for word, good in (("blue", True), ("dog", False))
        ],
        "A colour:⟦ blue</s>·1·⟧",
        ["2 rows, 1 dropped, 1 kept", "1 row (line 2): label is false: an answer marked as bad"],
    ),
    "alpaca-history": (
        [
            {
                "instruction": "And in",
                "input": "Bern?",
                "output": "Sun.",
                "system": "Be short.",
                "history": [["In Rome?", "Rain."]],
            },
            {
                "instruction": "Say a colour.",
                "input": "",
                "output": "Blue.",
                "system": None,
                "history": [],
                "note": "n",
            },
        ],
        "### System: Be short.↵\n### Human: In Rome?↵\n### Assistant: Rain.</s>·1·↵\n"
        "### Human: And in↵\nBern?↵\n### Assistant:⟦ Sun.</s>·1·⟧",
        ["not used: note (1 row)"],
    ),
    "kto.csv": (
        "prompt,completion,label,id\nA colour:, blue,True,1\nA colour:, dog,False,2\n",
        "A colour:⟦ blue</s>·1·⟧",
        ["2 rows, 1 dropped, 1 kept", "label is false: an answer marked as bad", "not used: id (1 row)"],
    ),
    "history.csv": (
        'instruction,input,output,system,history\nSay a colour.,,Blue.,,"[[""Hi."", ""Ho.""]]"\nSay it.,,Blue.,,[]\n',
        "### Human: Hi.↵\n### Assistant: Ho.</s>·1·↵\n" + CHAT,
        ["(alpaca): 2 rows, 0 dropped"],
    ),
    "reasoning": (
        [{"messages": [ASK, BLUE | {"reasoning_content": "The sky.", "finish_reason": "stop"}]}] * 2,
        "user:Say a colour.;assistant:⟦<think>The sky.</think>Blue.",
        ["not used: messages[].finish_reason (2 rows)"],
    ),
    "trl-chat": (
        [{"prompt": [ASK], "completion": [BLUE], "chat_template_kwargs": {"enable_thinking": False}}] * 2,
        CHAT,
        ["not used: chat_template_kwargs (2 rows)"],
    ),
    "preference": (
        [{"prompt": [ASK], "chosen": [BLUE], "rejected": [{"role": "assistant", "content": "Dog."}]}] * 2,
        CHAT,
        ["(preference): 2 rows, 0 dropped", "not used: rejected (2 rows)"],
    ),
    "train": (
        [
            {
                "messages": [
                    ASK,
                    {"role": "assistant", "content": "Bleu.", "train": False, "id": 3},
                    ASK,
                    BLUE | {"train": True},
                ]
            }
        ]
        * 2,
        "### Human: Say a colour.↵\n### Assistant: Bleu.</s>·1·↵\n" + CHAT,
        ["not used: messages[].id (2 rows)"],
    ),
    "calls": (
        [{"messages": [ASK, CALL, {"role": "tool", "content": "12", "tool_call_id": "x"}, BLUE]}] * 2,
        '### Assistant:⟦ {"name": "now", "arguments": {}}</s>·1·⟧↵\n### Tool: 12↵\n### Assistant:⟦ Blue.</s>·1·⟧',
        ["not used: messages[].tool_calls[].id (2 rows), messages[].tool_call_id (2 rows)"],
    ),
}


THINKING = (
    "{% for m in messages %}{{ m.role }}:"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }};"
    "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.mark.parametrize("name", FILES)
def test_preview_shows_what_is_learned_and_names_what_is_not_used(name, make_base, command, tmp_path, capsys):
    rows, shown, said = FILES[name]
    path = tmp_path / (name if isinstance(rows, str) else f"{name}.jsonl")
    path.write_text(
        rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    template = tmp_path / "think.jinja"
    template.write_text(THINKING, encoding="utf-8")
    flags = ["--chat_template", str(template)] if name == "reasoning" else []
    assert qlora.main(command(make_base(), "--dataset", str(path), "--preview", "1", *flags)) == 0
    printed = capsys.readouterr().out
    assert shown in printed
    report = " ".join(printed[printed.index("data report") : printed.index("split:")].split())
    assert all(part in report for part in said), report


def test_a_run_writes_what_is_not_used(make_base, command, tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"instruction": f"Say {n}.", "output": f"{n}", "label": n % 3, "id": n} for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert (
        qlora.main(
            command(make_base(), "--dataset", str(path), "--max_steps", "1", "--do_predict", "--max_eval_samples", "1")
        )
        == 0
    )
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert report["sources"][0]["unused"] == {"label": 8, "id": 8}
    [line] = (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()
    assert {"label", "id"} <= json.loads(line).keys()
