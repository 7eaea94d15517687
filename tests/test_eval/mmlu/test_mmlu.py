"""MMLU scores: against known answers, prefix against plain, during a run, alone, and over processes."""

import contextlib
import json
import types

import pytest
import torch

import qlora
from common.errors import DataError
from eval.mmlu import scoring as mmlu
from eval.mmlu.prefix import PrefixCache, each_alone, next_logits
from eval.mmlu.prompts import encode_prompts, letter_tokens, load_mmlu
from eval.mmlu.subjects import GROUPS
from tests.support.rounding import ROUNDING, assert_near

HEADER = "The following are multiple choice questions (with answers) about  {}.\n\n"
QUESTION = "What is {}?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:"


@pytest.fixture(scope="session")
def questions(tmp_path_factory):
    """A prompt file with 24 questions of three subjects, two examples before each."""
    path = tmp_path_factory.mktemp("mmlu") / "prompts.json"
    rows = []
    for n in range(24):
        subject = ("astronomy", "virology", "own_subject")[n % 3]
        examples = "".join(f"{QUESTION.format(k)} {'ABCD'[k]}\n\n" for k in range(2))
        prompt = HEADER.format(subject) + examples + QUESTION.format(f"{n} {'more ' * (n % 5)}")
        rows.append({"subject": subject, "input": prompt, "output": "ABCD"[n % 4]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_of(subjects):
    return [{"subject": subject, "input": "", "output": "B"} for subject in subjects]


def logits_of(right):
    """0 for every letter, and 5 for B where the answer is right, for C where it is not."""
    logits = torch.zeros(len(right), 4)
    for row, is_right in zip(logits, right, strict=True):
        row[1 if is_right else 2] = 5.0
    return logits


def test_metrics_by_hand():
    """Three of four in astronomy, none of one in virology, both in a subject of one's own."""
    rows = rows_of(["astronomy"] * 4 + ["virology"] + ["own"] * 2)
    found = mmlu.mmlu_metrics(rows, logits_of([True, True, True, False, False, True, True]).numpy(), "test")
    assert found["mmlu_test_accuracy_astronomy"] == found["mmlu_test_accuracy_group_stem"] == 0.75
    assert found["mmlu_test_accuracy_virology"] == found["mmlu_test_accuracy_group_other"] == 0.0
    assert found["mmlu_test_accuracy_own"] == 1.0
    assert found["mmlu_test_accuracy"] == pytest.approx((0.75 + 0 + 1) / 3)
    assert found["mmlu_test_accuracy_groups"] == pytest.approx(0.75 / 2)
    assert found["mmlu_test_accuracy_groups_low"] < 0.75 / 2 < found["mmlu_test_accuracy_groups_high"]
    assert found["mmlu_test_accuracy_questions"] == pytest.approx(5 / 7)
    right, wrong = 3 + 2.718281828**5, 2.718281828**5 + 3
    assert found["mmlu_test_loss"] == pytest.approx(
        (5 * -torch.log(torch.tensor(2.718281828**5 / right)) + 2 * torch.log(torch.tensor(wrong))).item() / 7
    )
    assert found["mmlu_test_accuracy_low"] < found["mmlu_test_accuracy"] < found["mmlu_test_accuracy_high"]
    assert found["mmlu_test_questions"] == 7


def test_logits_that_are_no_numbers_are_no_answer():
    rows = [{"subject": "s", "input": "", "output": "A"}]
    assert mmlu.answered_right(rows, torch.full((1, 4), float("nan")).numpy()) == [False]


def test_the_57_subjects_are_those_of_the_files(shared_data):
    names = {path.stem.removesuffix("_val") for path in (shared_data / "mmlu" / "val").glob("*.csv")}
    listed = [subject for subjects in GROUPS.values() for subject in subjects]
    assert len(listed) == 57 and set(listed) == names
    assert [len(GROUPS[name]) for name in ("stem", "humanities", "social_sciences", "other")] == [18, 13, 12, 14]


def loaded(path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(path), AutoTokenizer.from_pretrained(path)


def test_a_plain_function_scores_and_restores_the_model(questions, make_base):
    model, tokenizer = loaded(make_base())
    model.train()
    model.model.layers[0].eval()
    rows = load_mmlu(str(questions), "eval")
    scores = mmlu.score_mmlu(model, tokenizer, rows, "eval", 2048)
    assert model.training and model.model.layers[1].training and not model.model.layers[0].training
    model.eval()
    letters = letter_tokens(tokenizer)
    right = 0
    for row in rows:  # one whole forward pass and the whole output head for each question
        ids = [tokenizer.bos_token_id, *tokenizer(row["input"], add_special_tokens=False)["input_ids"], *letters.lead]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        right += "ABCD"[logits[list(letters.ids)].argmax()] == row["output"]
    assert scores["mmlu_eval_accuracy_questions"] == pytest.approx(right / len(rows))


def test_a_learned_table_of_positions_cuts_prompts(questions, make_base, tmp_path):
    from transformers import AutoModelForCausalLM, GPT2Config

    _, tokenizer = loaded(make_base("gpt2"))
    rows = load_mmlu(str(questions), "eval")
    model = AutoModelForCausalLM.from_config(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=384, n_positions=99))
    longest = max(len(prompt.ids) for prompt in mmlu.encode_mmlu(model, tokenizer, rows, 2048))
    assert 60 < longest <= 99
    model.config.n_positions = 40
    with pytest.raises(DataError, match="40 positions"):
        mmlu.encode_mmlu(model, tokenizer, rows, 2048)


def test_prompts_longer_than_the_model_was_made_for_are_said(questions, make_base, capsys):
    model, tokenizer = loaded(make_base())
    model.config.max_position_embeddings = 100
    mmlu.encode_mmlu(model, tokenizer, load_mmlu(str(questions), "eval"), 2048)
    assert "this model was made for 100; --mmlu_source_max_len 100 cuts their examples" in capsys.readouterr().out
    mmlu.encode_mmlu(model, tokenizer, [{"input": HEADER.format("art") + QUESTION.format("a" * 200)}], 2048)
    assert "made for 100; read its scores with care" in capsys.readouterr().out


@pytest.mark.parametrize(
    "header, said",
    [
        (
            HEADER.format("art"),
            "1 of 1 MMLU prompts are over --mmlu_source_max_len 20 tokens and lose first lines; 1 que",
        ),
        ("", "note: 1 of 1 MMLU questions are over --mmlu_source_max_len 20 tokens by themselves and stay whole."),
    ],
)
def test_questions_that_are_too_long_by_themselves_are_said(header, said, make_base, capsys):
    model, tokenizer = loaded(make_base())
    mmlu.encode_mmlu(model, tokenizer, [{"input": header + QUESTION.format("long " * 9)}], 20)
    assert said in capsys.readouterr().out


def test_shared_equals_plain_on_real_questions(shared_data, tmp_path):
    """Zero-shot questions of four subjects, behind an example each, with real weights."""
    from data.mmlu.prompts import format_prompt
    from data.mmlu.sources import read_file

    model, tokenizer = loaded(shared_data / "models" / "stories260K")
    texts = []
    for subject in ("anatomy", "formal_logic", "sociology", "virology"):
        dev, val = (
            list(read_file(shared_data / "mmlu" / split / f"{subject}_{split}.csv", subject))
            for split in ("dev", "val")
        )
        texts += [format_prompt(question, dev[:1]) for question in val]
    letters = letter_tokens(tokenizer)
    prompts = encode_prompts(tokenizer, texts, letters, 2048)
    model.eval()
    with torch.no_grad():
        shared = next_logits(model, prompts, letters.ids)
        plain = torch.cat([logits[:, list(letters.ids)] for _, logits in each_alone(model, prompts)])
    assert_near(shared, plain)
    assert torch.equal(shared.argmax(1), plain.argmax(1))


def logged(out):
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    return [entry for entry in history if "mmlu_eval_loss" in entry]


def test_during_a_run_and_alone(questions, make_base, command, tmp_path):
    """At the start, at each evaluation, at the end; then with --do_eval alone, and with nothing else."""
    flags = ["--do_mmlu_eval", "--mmlu_dataset", str(questions), "--max_mmlu_samples", "9"]
    argv = command(make_base(), *flags, "--do_eval", "--eval_strategy", "steps", "--eval_steps", "2", "--seed", "5")
    assert qlora.main(argv) == 0
    out = tmp_path / "out"
    metrics = json.loads((out / "metrics.json").read_text())
    assert [entry["step"] for entry in logged(out)] == [0, 2, 3]
    assert metrics["mmlu_eval_questions"] == 9 and metrics["mmlu_eval_prompts"] == str(questions)
    assert "mmlu_eval_accuracy_group_stem" in metrics
    assert json.loads((out / "eval_results.json").read_text())["mmlu_eval_loss"] == metrics["mmlu_eval_loss"]
    assert logged(out)[0]["mmlu_eval_loss"] != metrics["mmlu_eval_loss"]  # it was trained
    for more in (["--do_eval"], []):
        alone = command(make_base(), *flags, "--do_train", "False", "--seed", "5", *more)
        (out / "metrics.json").unlink()
        assert qlora.main(alone) == 0
        again = json.loads((out / "metrics.json").read_text())
        assert again["mmlu_eval_loss"] == pytest.approx(metrics["mmlu_eval_loss"], rel=ROUNDING)
        assert ("eval_loss" in again) == bool(more)


@pytest.mark.parametrize("scheduler", ["constant", "reduce_lr_on_plateau"])
def test_the_best_checkpoint_by_mmlu(questions, make_base, command, tmp_path, scheduler):
    flags = ["--do_mmlu_eval", "--mmlu_dataset", str(questions), "--eval_strategy", "steps", "--eval_steps", "1"]
    flags += ["--save_steps", "1", "--load_best_model_at_end", "--metric_for_best_model", "mmlu_eval_loss"]
    assert qlora.main(command(make_base(), *flags, "--lr_scheduler_type", scheduler)) == 0
    losses = {entry["step"]: entry["mmlu_eval_loss"] for entry in logged(tmp_path / "out") if entry["step"]}
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert state["best_metric"] == min(losses.values())
    assert state["best_global_step"] == min(losses, key=losses.get)
    assert not any(name.startswith("eval_mmlu") for name in json.loads((tmp_path / "out" / "metrics.json").read_text()))


@pytest.mark.parametrize(
    "flags, best, said",
    [
        ([], "eval_mmlu_eval_loss", "--metric_for_best_model eval_mmlu_eval_loss without --do_mmlu_eval"),
        (["--do_mmlu_eval", "--mmlu_split", "test"], "mmlu_eval_loss", "no such number; try mmlu_test_loss"),
        (["--do_mmlu_eval"], "mmlu_eval_acuracy_virology", "no such number; try mmlu_eval_accuracy_virology"),
        (["--do_mmlu_eval"], "mmlu_eval_accuracy_group_humanities", "give no such number"),
    ],
)
def test_a_best_metric_that_is_not_measured_is_refused(
    questions, make_base, command, capsys, monkeypatch, flags, best, said
):
    def never(*args):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("training.model.build.build_model", never)
    flags = [*flags, "--mmlu_dataset", str(questions), "--metric_for_best_model", best, "--eval_strategy", "steps"]
    assert qlora.main(command(make_base(), *flags)) == 2
    assert said in capsys.readouterr().err


def test_questions_alone_need_no_rows(questions, make_base, tmp_path, capsys):
    """Nothing is said of rows and training; a model with fewer positions than rows have tokens by default will do."""
    argv = ["--model_name_or_path", str(make_base("gpt2")), "--bits", "16", "--output_dir", str(tmp_path / "out")]
    argv += ["--do_train", "False", "--do_mmlu_eval", "--mmlu_dataset", str(questions)]
    assert qlora.main(argv) == 0
    printed = capsys.readouterr().out
    assert not any(said in printed for said in ("data:", "data report", "_max_len", "optimizer"))
    assert "MMLU: " in printed


def test_scoring_changes_nothing_that_is_trained(questions, make_base, command, tmp_path, adapter_of):
    flags = ["--eval_strategy", "steps", "--eval_steps", "1", "--lora_dropout", "0.1"]
    mmlu_flags = ["--do_mmlu_eval", "--mmlu_dataset", str(questions)]
    for name, more in (("without", []), ("with", mmlu_flags)):
        assert qlora.main(command(make_base(), *flags, *more, "--output_dir", str(tmp_path / name))) == 0
    one, two = adapter_of(tmp_path / "without"), adapter_of(tmp_path / "with")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_bad_prompt_file_is_refused_before_training(questions, make_base, command, tmp_path, capsys):
    path = tmp_path / "bad.json"
    path.write_text(questions.read_text() + "{}\n")
    assert qlora.main(command(make_base(), "--do_mmlu_eval", "--mmlu_dataset", str(path))) == 2
    assert "bad.json, line 25" in capsys.readouterr().err
    assert not (tmp_path / "out" / "trainer_state.json").exists()


def test_processes_share_the_groups_and_leave_none_out(questions, make_base):
    model, tokenizer = loaded(make_base())
    prompts = mmlu.encode_mmlu(model, tokenizer, load_mmlu(str(questions), "eval"), 2048)
    shares = []
    for rank in range(2):
        callback = mmlu.MMLUEvalCallback.__new__(mmlu.MMLUEvalCallback)
        callback.prompts = prompts
        callback.trainer = types.SimpleNamespace(
            args=types.SimpleNamespace(world_size=2, process_index=rank),
            is_fsdp_enabled=False,
            is_deepspeed_enabled=False,
        )
        shares.append(callback.share())
    assert sorted(shares[0] + shares[1]) == list(range(24))
    assert {len(share) for share in shares} == {8, 16}
    callback.trainer.is_fsdp_enabled = True  # processes that hold one model together score together
    assert callback.share() == list(range(24))


@pytest.mark.parametrize("together", [False, True])
def test_a_full_memory_ends_only_processes_that_compute_together(questions, make_base, monkeypatch, together):
    """One that went another way than the others would leave them waiting for ever."""
    model, tokenizer = loaded(make_base())
    trainer = types.SimpleNamespace(
        model=model,
        processing_class=tokenizer,
        args=types.SimpleNamespace(world_size=1, process_index=0, disable_tqdm=True),
        accelerator=types.SimpleNamespace(autocast=contextlib.nullcontext),
        is_world_process_zero=lambda: True,
        is_fsdp_enabled=False,
        is_deepspeed_enabled=together,
        log=lambda metrics: None,
    )
    callback = mmlu.MMLUEvalCallback(trainer, load_mmlu(str(questions), "eval"))

    def fill_up(self, ids):
        raise torch.OutOfMemoryError("tried to allocate 7 GiB")

    monkeypatch.setattr(PrefixCache, "go_to", fill_up)
    with pytest.raises(torch.OutOfMemoryError) if together else contextlib.nullcontext():
        assert callback.score()["mmlu_eval_questions"] == 24
