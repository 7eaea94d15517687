"""The command line as people use it, from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import qlora
from tests.support.paths import REPOSITORY
from tests.support.rounding import assert_near, distance


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_whole_run_leaves_what_it_says(make_base, command, tmp_path, capsys):
    out = tmp_path / "out"
    assert qlora.main(command(make_base(), "--do_eval", "--do_predict", "--predict_with_generate")) == 0
    for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "README.md", "completed"):
        assert (out / name).is_file(), name
    metrics = json.loads((out / "metrics.json").read_text())
    for split in ("train", "eval", "predict"):
        assert json.loads((out / f"{split}_results.json").read_text()).items() <= metrics.items()
    assert metrics["train_steps"] == 3 and metrics["eval_samples"] == metrics["predict_samples"] == 4
    lines = read_lines(out / "predictions.jsonl")
    assert len(lines) == 4
    added = ["prediction_with_input", "prediction", "prediction_tokens", "prediction_stopped"]
    assert list(lines[0])[-4:] == added and {"input", "output", "instruction"} == set(lines[0]) - set(added)
    printed = capsys.readouterr().out
    assert "24 kept = 20 train + 4 held out" in printed and "summary" in printed
    assert f"{metrics['eval_loss']:.4f}" in printed
    card = (out / "README.md").read_text()
    assert "library_name: peft" in card and "--do_predict" in card and "[More Information Needed]" not in card
    assert (out / "adapter_model.safetensors").stat().st_mode & 0o777 == (out / "tokenizer.json").stat().st_mode & 0o777


def test_bars_say_what_is_measured(make_base, command, capsys):
    argv = command(make_base(), "--do_eval", "--do_predict", "--compare_base", "--max_steps", "1")
    argv[argv.index("--disable_tqdm") + 1] = "False"
    assert qlora.main(argv) == 0
    shown = capsys.readouterr().err
    assert all(f"{kind}: " in shown for kind in ("base_eval", "base_predict", "\reval", "\rpredict"))


def test_a_later_command_brings_the_numbers_of_the_card_up_to_date(make_base, command, trained):
    """What it says of the training stays, and so does what was written into it by hand."""
    card = trained / "README.md"
    made = card.read_text()
    card.write_text(f"{made}\nNot for production.\n")
    assert qlora.main(command(make_base(), "--do_train", "False", "--do_predict")) == 0
    now = card.read_text()
    assert "| predict_samples | 4 |" in now and "predict_samples" not in made
    assert "--do_predict" not in now and now.endswith("|\n\nNot for production.\n")
    assert set(made.splitlines()) < set(now.splitlines())
    other = command(make_base(), "--do_train", "False", "--do_eval", "--resume_from_checkpoint")
    assert qlora.main([*other, str(trained / "checkpoint-3")]) == 0
    assert card.read_text() == now  # which is of the weights beside it


def test_adapter_loads_with_plain_peft(make_base, make_args, command, tmp_path):
    """`PeftModel.from_pretrained(base, output_dir)` gives the logits that the tool itself evaluates with."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from qlora import get_accelerate_model

    argv = command(make_base(), "--bits", "32")
    assert qlora.main(argv) == 0
    out = tmp_path / "out"
    tokenizer = AutoTokenizer.from_pretrained(out)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    base = AutoModelForCausalLM.from_pretrained(make_base())
    with torch.no_grad():
        untuned = base(ids).logits
        theirs = PeftModel.from_pretrained(base, out).eval()(ids).logits
        ours = get_accelerate_model(make_args(argv)[0], str(out))[0].eval()(ids).logits
    assert_near(theirs, ours)
    assert distance(untuned, ours) > 0.01


def test_added_pad_row_is_saved_with_the_adapter(make_base, command, tmp_path):
    """A base without pad and unk token: embeddings grow, and plain PEFT gives the same logits after a resize."""
    import shutil

    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = shutil.copytree(make_base(), tmp_path / "base")
    config = json.loads((base / "tokenizer_config.json").read_text())
    config = {name: value for name, value in config.items() if name not in ("pad_token", "unk_token")}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    text = (base / "tokenizer.json").read_text()
    (base / "tokenizer.json").write_text(text.replace("<pad>", "<x>").replace("<unk>", "<y>"))
    assert qlora.main(command(base, "--bits", "32", "--do_eval")) == 0
    out = tmp_path / "out"
    for directory in (out, out / "checkpoint-3"):
        tokenizer = AutoTokenizer.from_pretrained(directory)
        assert tokenizer.pad_token == "[PAD]"
        model = AutoModelForCausalLM.from_pretrained(base)
        model.resize_token_embeddings(len(tokenizer))
        model = PeftModel.from_pretrained(model, directory)
        embeddings = model.get_input_embeddings().weight
        assert_near(embeddings[-1], embeddings[:-1].mean(dim=0))
    loss = json.loads((out / "metrics.json").read_text())["eval_loss"]
    assert qlora.main(command(base, "--bits", "32", "--do_eval")) == 0
    assert json.loads((out / "metrics.json").read_text())["eval_loss"] == loss


def test_base_model_is_predicted_with_where_nothing_is_tuned(make_base, command, tmp_path, capsys):
    assert qlora.main(command(make_base(), "--do_train", "False", "--do_eval")) == 0
    assert "this is the base model" in capsys.readouterr().out
    out = tmp_path / "out"
    assert not (out / "completed").exists() and not (out / "adapter_model.safetensors").exists()


def test_evaluation_between_steps_and_best_checkpoint(make_base, command, tmp_path):
    flags = ["--evaluation_strategy", "steps", "--eval_steps", "1", "--save_steps", "1", "--load_best_model_at_end"]
    assert qlora.main(command(make_base(), *flags)) == 0
    state = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    losses = {entry["step"]: entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry}
    assert losses.keys() == {0, 1, 2, 3}
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["eval_loss"] == pytest.approx(min(losses[step] for step in (1, 2, 3)), rel=1e-6)


def test_bfloat16_on_the_cpu_warns_and_runs(make_base, command, capsys):
    assert qlora.main(command(make_base(), "--bf16", "--do_eval")) == 0
    assert "bf16 on a CPU" in capsys.readouterr().out


def test_fp16_without_a_gpu_is_refused(make_base, command, capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert qlora.main(command(make_base(), "--fp16")) == 2
    assert "--fp16 without a CUDA GPU" in capsys.readouterr().err


def test_wrong_data_is_refused_before_the_model_loads(command, tmp_path, capsys, monkeypatch):
    import training.model.build

    def never(*args):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(training.model.build, "build_model", never)
    assert qlora.main(command(tmp_path, "--dataset", str(tmp_path / "absent.jsonl"))) == 2
    error = capsys.readouterr().err
    assert error.startswith("qlora.py: error: ") and "absent.jsonl" in error and "Traceback" not in error


def test_mmlu_without_its_files_is_refused(make_base, command, capsys, monkeypatch, tmp_path):
    from eval.mmlu import prompts as mmlu_prompts

    monkeypatch.setattr(mmlu_prompts, "MMLU_DIRECTORY", tmp_path)
    assert qlora.main(command(make_base(), "--do_mmlu_eval")) == 2
    assert "five_shot_mmlu_val.json" in capsys.readouterr().err


def test_output_directory_that_cannot_be_written(make_base, command, capsys):
    assert qlora.main(command(make_base(), "--output_dir", "/proc/nope")) == 2
    assert "--output_dir /proc/nope cannot be written" in capsys.readouterr().err


def test_run_without_a_step_is_a_failure(make_base, command, tmp_path, capsys):
    flags = ["--max_train_samples", "1", "--dataloader_drop_last", "True"]
    assert qlora.main(command(make_base(), *flags)) == 1
    assert "not one step was trained" in capsys.readouterr().err
    assert not (tmp_path / "out" / "completed").exists()


def test_metrics_of_the_base_do_not_become_the_adapters(make_base, command, tmp_path):
    assert qlora.main(command(make_base(), "--do_train", "False", "--do_eval")) == 0
    assert qlora.main(command(make_base(), "--max_steps", "1")) == 0
    assert "eval_loss" not in json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_hub_token_is_not_published():
    from eval.report.card import public_command

    shown = public_command(["--hub_token", "hf_secret", "--max_new_tokens", "32", "--hub-token=hf_other"])
    assert "hf_" not in shown and "--max_new_tokens 32" in shown


def test_too_long_for_learned_positions_is_refused(make_base, command, capsys):
    assert qlora.main(command(make_base("gpt2"), "--source_max_len", "2000")) == 2
    assert "2,048 positions" in capsys.readouterr().err


def test_sampling_flags_without_sampling_are_said(make_base, command, capsys):
    flags = ["--do_train", "False", "--do_predict", "--temperature", "0.7"]
    assert qlora.main(command(make_base(), *flags)) == 0
    assert "--temperature: no effect without --do_sample" in capsys.readouterr().out


def test_sampling_and_beams_run(make_base, command, tmp_path):
    for flags in (["--do_sample", "--temperature", "0.7", "--top_p", "0.9"], ["--num_beams", "2"]):
        out = tmp_path / flags[0]
        argv = command(make_base(), "--do_train", "False", "--do_predict", *flags, "--output_dir", str(out))
        assert qlora.main(argv) == 0
        assert len(read_lines(out / "predictions.jsonl")) == 4


def test_real_model_on_real_rows(shared_data, tmp_path):
    """Rows of Alpaca with a real 260K-parameter Llama: the loss falls, and everything is written."""
    flags = ["--max_train_samples", "32", "--eval_dataset_size", "8", "--source_max_len", "64"]
    flags += ["--target_max_len", "64", "--max_steps", "4"]
    flags += ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "1"]
    flags += ["--learning_rate", "2e-3", "--do_eval", "--do_predict", "--max_new_tokens", "4", "--disable_tqdm", "True"]
    model, rows = shared_data / "models" / "stories260K", shared_data / "alpaca" / "llamafactory_alpaca_en_demo.json"
    argv = ["--model_name_or_path", str(model), "--dataset", str(rows), "--output_dir", str(tmp_path), *flags]
    assert qlora.main(argv) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["eval_loss"] < metrics["eval_loss_before"] - 0.1
    assert len(read_lines(tmp_path / "predictions.jsonl")) == 8


def test_stopped_as_a_program(make_base, command, tmp_path):
    """SIGTERM to the process: it saves, exits with 143, and the same command goes on."""
    argv = [sys.executable, "qlora.py", *command(make_base(), "--max_steps", "100000", "--save_steps", "100000")]
    argv[argv.index("--disable_tqdm") + 1] = "True"
    argv += ["--logging_steps", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if "'loss'" in line:
                process.terminate()
                break
        rest = process.stdout.read()
        assert process.wait(timeout=120) == 143
    assert "the same command goes on from" in rest
    assert len(list((tmp_path / "out").glob("checkpoint-*/manifest.json"))) == 1


def chat_rows(path: Path) -> Path:
    rows = [
        {"messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": f"What is {n} and one?"}, {"role": "assistant", "content": f"It is {n + 1}."},
            {"role": "user", "content": "And twice that?"}, {"role": "assistant", "content": f"{2 * n + 2}!"},
        ]}
        for n in range(24)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_conversations_train_predict_and_leave_their_template(make_base, command, tmp_path, capsys):
    from transformers import AutoTokenizer

    rows = chat_rows(tmp_path / "chat.jsonl")
    argv = command(make_base(), "--dataset", str(rows), "--do_eval", "--do_predict")
    assert qlora.main(argv) == 0
    assert "chat template is the default one" in capsys.readouterr().out
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    for line in read_lines(tmp_path / "out" / "predictions.jsonl"):
        prompt = tokenizer.apply_chat_template(line["messages"][:-1], tokenize=False, add_generation_prompt=True)
        shown = tokenizer.decode(tokenizer(prompt, add_special_tokens=False).input_ids, skip_special_tokens=True)
        assert line["prediction_with_input"].startswith(shown)
        assert line["output"] == line["messages"][-1]["content"]
    report = json.loads((tmp_path / "out" / "data_report.json").read_text())
    assert report["train"]["rows"] == 20 and report["sources"][0]["format"] == "messages"


def test_preview_shows_rows_and_writes_nothing(make_base, command, tmp_path, capsys):
    rows = chat_rows(tmp_path / "chat.jsonl")
    assert qlora.main(command(make_base(), "--dataset", str(rows), "--preview", "2")) == 0
    printed = capsys.readouterr().out
    assert "row 1 of 24" in printed and "row 2 of 24" in printed and "row 3 of 24" not in printed
    assert "⟦ It is 1.</s>·1·⟧" in printed and "⟦ 2!</s>·1·⟧" in printed
    assert "### Human: What is 0 and one?" in printed and not (tmp_path / "out").exists()


def test_preview_shows_the_template_that_the_run_was_trained_with(make_base, command, tmp_path, capsys):
    rows = chat_rows(tmp_path / "chat.jsonl")
    template = tmp_path / "mine.jinja"
    template.write_text("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}{% endfor %}"
                        "{% if add_generation_prompt %}<assistant>{% endif %}")  # fmt: skip
    argv = command(make_base(), "--dataset", str(rows), "--max_steps", "1")
    assert qlora.main([*argv, "--chat_template", str(template)]) == 0
    template.unlink()
    capsys.readouterr()
    assert qlora.main([*argv, "--preview", "1"]) == 0
    assert "<user>What is 0 and one?" in capsys.readouterr().out


def test_data_that_changed_since_the_checkpoint_is_said(make_base, command, tmp_path, capsys):
    rows = chat_rows(tmp_path / "chat.jsonl")
    argv = command(make_base(), "--dataset", str(rows), "--max_steps", "1")
    assert qlora.main([*argv, "--do_eval"]) == 0
    again = [*argv, "--do_train", "False", "--do_eval"]
    assert qlora.main(again) == 0
    assert "changed since" not in capsys.readouterr().out
    rows.write_text(rows.read_text().replace("It is 5.", "It is five."))
    assert qlora.main(again) == 0
    said = capsys.readouterr().out
    assert "WARNING: changed since" in said and f"the rows of --dataset {rows}; held-out rows may have been" in said
    other = chat_rows(tmp_path / "other.jsonl")  # what the summary of a training without held-out rows proposes
    assert qlora.main([*argv, "--do_train", "False", "--do_predict", "--eval_dataset", str(other)]) == 0
    assert "changed since" not in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "data_report.json").read_text())["train"]["rows"] == 20


def test_half_a_character_in_a_field_does_not_lose_the_predictions(make_base, command, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"input": "a", "output": "b", "note": "\ud83d"}) + "\n")
    argv = command(make_base(), "--do_train", "False", "--do_predict", "--eval_dataset", str(rows))
    assert qlora.main(argv) == 0
    assert read_lines(tmp_path / "out" / "predictions.jsonl")[0]["note"] == "\ud83d"


def test_questions_without_answers_are_predicted(make_base, command, tmp_path, capsys):
    """An answer is the same whether the file holds a reference or not; only what is measured differs."""
    with_answers = chat_rows(tmp_path / "chat.jsonl")
    rows = [json.loads(line) for line in with_answers.read_text().splitlines()[:3]]
    waiting = tmp_path / "waiting.jsonl"
    waiting.write_text("".join(json.dumps({"messages": row["messages"][:-1]}) + "\n" for row in rows))
    predict = ["--do_train", "False", "--do_predict", "--max_eval_samples", "3", "--eval_dataset"]
    assert qlora.main(command(make_base(), *predict, str(with_answers))) == 0
    expected = read_lines(tmp_path / "out" / "predictions.jsonl")
    assert "predict_exact_match" in json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert qlora.main(command(make_base(), *predict, str(waiting))) == 0
    lines = read_lines(tmp_path / "out" / "predictions.jsonl")
    assert [line["prediction"] for line in lines] == [line["prediction"] for line in expected]
    assert all("output" not in line for line in lines)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "predict_loss" not in metrics and "predict_exact_match" not in metrics
