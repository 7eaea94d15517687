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


@pytest.mark.parametrize("name", FILES)
def test_preview_shows_what_is_learned_and_names_what_is_not_used(name, make_base, command, tmp_path, capsys):
    rows, shown, said = FILES[name]
    path = tmp_path / f"{name}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert qlora.main(command(make_base(), "--dataset", str(path), "--preview", "1", "--max_train_samples", "2")) == 0
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
