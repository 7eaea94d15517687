"""Every real data file loads; `pytest -s tests/test_real_data.py` prints what became of each as a table."""

import functools
from argparse import Namespace

import pytest

from data.tokens import encoder as tokens
from tests.support.flags import data_module

EMPTY = "an empty answer"
KTO = "label is false: an answer marked as bad"
# file → format detected, records, rows kept, rows dropped for each reason
FILES = {
    "alpaca/alpaca_data.json.gz": ("alpaca", 52_002, 51_974, {EMPTY: 28}),
    "alpaca/llamafactory_alpaca_en_demo.json": ("alpaca", 999, 999, {}),
    "alpaca/torchtune_alpaca_tiny.json": ("alpaca", 100, 100, {}),
    "chat/fastchat_dummy_conversation.json": ("sharegpt", 500, 500, {}),
    "chat/llamafactory_dpo_en_demo.json": ("sharegpt-preference", 300, 300, {}),
    "chat/llamafactory_glaive_toolcall_en_demo.json": ("sharegpt", 300, 300, {}),
    "chat/llamafactory_identity.json": ("alpaca", 91, 91, {}),
    "chat/llamafactory_kto_en_demo.json": ("messages", 300, 150, {KTO: 150}),
    "chat/llamafactory_v1_sft_demo.jsonl": ("messages", 500, 500, {}),
    "chat/xtuner_messages_sample.jsonl": ("messages", 200, 200, {}),
    "chat/xtuner_openai_sft.jsonl": ("messages", 128, 128, {}),
    "flan-t0/flan_cot_aqua_train.json": ("alpaca", 2_000, 2_000, {}),
    "flan-t0/flan_cot_creak_train.json": ("alpaca", 2_000, 2_000, {}),
    "flan-t0/flan_cot_qasc_train.json": ("alpaca", 1_084, 1_084, {}),
    "flan-t0/flan_cot_strategyqa_train.json": ("alpaca", 2_000, 2_000, {}),
    "flan-t0/t0_train_sample.jsonl": ("self-instruct", 1_981, 1_932, {EMPTY: 49}),
    "gsm8k/test.jsonl": ("question-answer", 1_319, 1_319, {}),
    "gsm8k/train.jsonl": ("question-answer", 7_473, 7_473, {}),
    "hh-rlhf/harmless-base/test.jsonl.gz": ("hh-rlhf", 2_312, 2_312, {}),
    "longform/longform_train.json": ("input-output", 17, 17, {}),
    "longform/longform_val.json": ("input-output", 9, 9, {}),
    "oasst1-guanaco/oa_questions.jsonl": ("input-output", 953, 953, {}),
    "raw-text/c4_demo.jsonl": ("text", 300, 300, {}),
    "raw-text/wiki_demo.txt": ("text", 1, 1, {}),
    "self-instruct/davinci-self-instruct_predictions.jsonl": ("prompt-target", 252, 252, {}),
    "self-instruct/minillm_self-inst_valid.jsonl": ("alpaca", 242, 242, {}),
    "self-instruct/seed_tasks.jsonl": ("seed-tasks", 175, 175, {}),
    "self-instruct/user_oriented_instructions.jsonl": ("seed-tasks", 252, 252, {}),
    "super-natural-instructions/sinst_11_valid.jsonl": ("alpaca", 1_694, 2_562, {}),
}
# Super-NaturalInstructions task file → rows kept, rows dropped for each reason; each is one record.
TASKS = {
    "task002_quoref_answer_generation": (577, {}),
    "task073_commonsenseqa_answer_generation": (500, {}),
    "task126_scan_structured_text_generation_command_action_all": (500, {}),
    "task1290_xsum_summarization": (500, {}),
    "task1510_evalution_relation_extraction": (500, {}),
    "task156_codah_classification_adversarial": (500, {}),
    "task1572_samsum_summary": (160, {}),
    "task1590_diplomacy_text_generation": (126, {}),
    "task1687_sentiment140_classification": (500, {}),
    "task1729_personachat_generate_next": (500, {}),
    "task181_outcome_extraction": (338, {}),
    "task305_jeopardy_answer_generation_normal": (500, {}),
    "task363_sst2_polarity_classification": (500, {}),
    "task511_reddit_tifu_long_text_summarization": (497, {EMPTY: 3}),
    "task591_sciq_answer_generation": (500, {}),
    "task639_multi_woz_user_utterance_generation": (142, {}),
    "task748_glucose_reverse_cause_event_detection": (618, {}),
    "task875_emotion_classification": (500, {}),
}
FILES |= {
    f"super-natural-instructions/tasks/{name}.json": ("super-natural-instructions", 1, *rows)
    for name, rows in TASKS.items()
}
TOKENIZED = 100  # rows of each file, for the supervised share


@pytest.fixture(scope="module")
def tokenizer(shared_data):
    from transformers import AutoTokenizer

    with pytest.MonkeyPatch.context() as monkeypatch:  # its 32,000 tokens are digested once, not for every file
        monkeypatch.setattr(tokens, "_tokenizer_state", functools.cache(tokens._tokenizer_state))
        yield AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "llama-2-hf")


def test_every_data_file_is_in_the_table(shared_data):
    folders = [path for path in shared_data.iterdir() if path.name not in ("mmlu", "models", "tokenizers")]
    files = [
        path for folder in folders for path in folder.rglob("*") if path.suffix in (".json", ".jsonl", ".gz", ".txt")
    ]
    assert {str(path.relative_to(shared_data)) for path in files} == set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_file_loads_whole(name, shared_data, tokenizer):
    flags = {"dataset": str(shared_data / name), "max_train_samples": TOKENIZED, "eval_dataset_size": 1024}
    module = data_module(tokenizer, Namespace(**flags, do_eval=False))
    [source] = module.report["sources"]
    dropped = {reason: rows["rows"] for reason, rows in source["dropped"].items()}
    beyond_the_limits = sum(dropped.pop(reason) for reason in list(dropped) if "no token of an answer" in reason)
    found = (source["format"], source["records"], source["rows"] + beyond_the_limits, dropped)
    supervised = module.report["train"]["supervised"]
    print(
        f"| {name} | {found[0]} | {found[1]:,} | {found[2]:,} | {sum(dropped.values()):,} | {supervised['share']:.1%} |"
    )
    assert found == FILES[name]
    assert 0 < supervised["share"] < 1 and supervised["rows_without"] == 0
    for row in module.train.select(range(min(5, len(module.train)))):
        assert row["input_ids"].count(tokenizer.bos_token_id) == 1
        assert row["labels"][-1] == tokenizer.eos_token_id or source["format"] == "text"
