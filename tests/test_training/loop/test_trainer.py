"""The trainer's equivalences: what must not change the result does not."""

import json
import math

import pytest
import torch
import transformers

import qlora
from common.labels import PROMPT
from tests.conftest import ARCHITECTURES
from tests.support.flags import trainer_of
from tests.support.paths import REPOSITORY
from tests.support.rounding import DESCENT, ROUNDING, assert_near
from training.loop import trainer as trainer_module
from training.loop.steps import collate_step
from training.shortcuts import decoding


def rows_of(module, count):
    return list(module.train.select(range(count)))


def batch_of(module, count=6):
    batch = module.collator(rows_of(module, count))
    return {name: batch[name] for name in ("input_ids", "attention_mask", "labels")}


def train_with(make_args, argv, adapter_of, out):
    assert qlora.main(argv) == 0
    return adapter_of(out)


def test_accumulation_is_a_larger_batch(make_base, command, tmp_path, adapter_of):
    """1 × 8, 8 × 1 and 4 × 2 rows of unequal lengths give the same adapter."""
    results = []
    for rows, micro_batches in ((1, 8), (8, 1), (4, 2)):
        out = tmp_path / f"{rows}x{micro_batches}"
        flags = ["--per_device_train_batch_size", str(rows), "--gradient_accumulation_steps", str(micro_batches)]
        flags += ["--output_dir", str(out), "--train_sampling_strategy", "sequential", "--max_steps", "2"]
        assert qlora.main(command(make_base(), *flags, *DESCENT)) == 0
        results.append(adapter_of(out))
    for other in results[1:]:
        assert_near(other, results[0])


# ---- Steps of several micro-batches --------------------------------------------------------------------------------


def watch(monkeypatch) -> list[list[tuple[int, ...]]]:
    """For each optimizer step from now on, the (rows, longest) of the micro-batches that were trained on."""
    seen: list[list[tuple[int, ...]]] = []
    step, one_batch = trainer_module.QLoRATrainer.get_batch_samples, transformers.Trainer.training_step

    def get_batch_samples(self, *args, **kwargs):
        seen.append([])
        return step(self, *args, **kwargs)

    def training_step(self, model, inputs, *args, **kwargs):
        assert inputs.keys() == {"input_ids", "attention_mask", "labels", "logits_to_keep"}
        assert int(inputs["attention_mask"].sum(dim=1).max()) == inputs["input_ids"].shape[1]
        seen[-1].append(tuple(inputs["input_ids"].shape))
        return one_batch(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(trainer_module.QLoRATrainer, "get_batch_samples", get_batch_samples)
    monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
    return seen


def run_watched(argv, out) -> tuple[list, list[dict]]:
    """Run a command line that writes to `out`; gives what `watch` sees of it, and what was logged of each step."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        steps = watch(monkeypatch)
        assert qlora.main([*argv, "--output_dir", str(out)]) == 0
    state = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["global_step"] == 10 and state["total_flos"] > 0
    return steps, [entry for entry in state["log_history"] if "loss" in entry]


TWO_EPOCHS = ["--max_steps", "-1", "--num_train_epochs", "2", "--max_train_samples", "18", "--logging_steps", "1"]
TWO_EPOCHS += ["--include_num_input_tokens_seen", "--save_strategy", "no", *DESCENT]
PADDED = ["--shared_prefix", "off"]
SPLITS = {
    "by length": [],
    "by length, workers": ["--dataloader_num_workers", "2"],
    "token budget": ["--max_tokens_per_batch", "260"],
    "token budget, plain order": ["--max_tokens_per_batch", "260", "--train_sampling_strategy", "random"],
}


@pytest.fixture(scope="module")
def plain(make_base, command_to, tmp_path_factory):
    """Directory of a run whose steps are not split by length, and what `run_watched` gives of it."""
    out = tmp_path_factory.mktemp("plain")
    argv = command_to(out, make_base(), *TWO_EPOCHS, "--group_by_length", "False")
    return out, *run_watched(argv, out)


@pytest.mark.parametrize("way", SPLITS)
def test_how_a_step_is_split_changes_nothing(way, plain, make_base, command, tmp_path, adapter_of):
    """Same rows in every step, same losses, same weights: over two epochs of 18 rows, the last step of 2 each."""
    out, *of_plain = plain
    of_split = run_watched(command(make_base(), *TWO_EPOCHS, *PADDED, *SPLITS[way]), tmp_path)
    (plain_steps, split_steps), histories = zip(of_plain, of_split, strict=True)
    rows = [[sum(batch[0] for batch in step) for step in steps] for steps in (plain_steps, split_steps)]
    assert rows[0] == rows[1] == [4, 4, 4, 4, 2] * 2
    padded = [sum(size[0] * size[1] for step in steps for size in step) for steps in (plain_steps, split_steps)]
    assert padded == [history[-1]["num_input_tokens_seen"] for history in histories]
    assert split_steps != plain_steps and (padded[1] < padded[0] or "budget" in way)
    if "budget" in way:
        assert all(count * longest <= 260 for step in split_steps for count, longest in step)
        assert len({len(step) for step in split_steps[:4]}) > 1
    else:
        assert {len(step) for step in split_steps} == {1, 2}
    for before, after in zip(*histories, strict=True):
        assert after["loss"] == pytest.approx(before["loss"], rel=ROUNDING)
        # To the library a step is one batch of five where it is split, and two of nine where it is not.
        assert after["step"] == before["step"] and after["epoch"] == pytest.approx(before["epoch"], abs=0.1)
    assert [histories[1][number]["epoch"] for number in (4, 9)] == [1, 2]
    assert_near(adapter_of(tmp_path), adapter_of(out))


def test_the_given_batch_size_is_what_is_recorded(make_base, command, tmp_path):
    """Though the library counts a step as one batch."""
    assert qlora.main(command(make_base(), "--max_tokens_per_batch", "400")) == 0
    manifest = json.loads((tmp_path / "out" / "checkpoint-3" / "manifest.json").read_text(encoding="utf-8"))
    given = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_tokens_per_batch": 400}
    assert {name: manifest["flags"][name] for name in given} == given
    assert manifest["flags"]["packing"] is False and manifest["flags"]["group_by_length"] is True
    state = json.loads((tmp_path / "out" / "checkpoint-3" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["train_batch_size"] == 4 and state["epoch"] == 0.5


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        ([], "in this order: --per_device_train_batch_size 1 (now 2) with more --gradient_accumulation_steps, shorter"),
        (["--per_device_train_batch_size", "1"], "in this order: shorter --source_max_len"),
        (["--packing"], "a smaller --max_tokens_per_batch (now source_max_len + target_max_len)"),
        (["--max_tokens_per_batch", "350"], "a smaller --max_tokens_per_batch (now 350)"),
    ],
)
def test_too_little_memory_is_answered_in_the_flags_that_were_given(
    flags, advice, make_base, command, capsys, monkeypatch
):
    def training_step(*args, **kwargs):
        raise torch.OutOfMemoryError("tried to allocate 7 GiB")

    monkeypatch.setattr(transformers.Trainer, "training_step", training_step)
    assert qlora.main(command(make_base(), *flags)) == 1
    assert advice in capsys.readouterr().err


def test_what_only_one_micro_batch_holds_still_counts_by_its_tokens(make_base, make_args, command):
    """The loss of a step is the mean over its supervised tokens, not over its micro-batches."""
    trainer, module = trainer_of(command(make_base(), "--max_tokens_per_batch", "260"))
    rows = rows_of(module, 7)
    steps = iter([collate_step(module.step_collator, rows)])
    [step], items = trainer.get_batch_samples(steps, 1, trainer.args.device)
    assert int(items) == sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in module.step_collator(rows))
    with torch.no_grad():
        whole = trainer.model(**batch_of(module, 7)).loss.item()
    assert trainer.training_step(trainer.model, step, items).item() == pytest.approx(whole, rel=ROUNDING)


def test_a_model_that_takes_mean_losses_learns_by_tokens_too(make_base, command, tmp_path, monkeypatch):
    """As the library marks Gemma 3n and remote code without **kwargs: however a step is split, it is one step."""

    def logged(out):
        history = json.loads((out / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
        return [(entry["loss"], entry["grad_norm"]) for entry in history if "loss" in entry]

    def flags(name, rows, micro_batches, *more):
        sizes = ["--per_device_train_batch_size", str(rows), "--gradient_accumulation_steps", str(micro_batches)]
        data = ["--max_train_samples", "10", "--max_steps", "2", "--logging_steps", "1", "--save_strategy", "no"]
        data += ["--max_grad_norm", "0"]
        return command(make_base(), *data, *sizes, *more, "--output_dir", str(tmp_path / name))

    assert qlora.main(flags("expected", 8, 1)) == 0
    monkeypatch.setattr(transformers.LlamaForCausalLM, "accepts_loss_kwargs", False, raising=False)
    expected = logged(tmp_path / "expected")
    ways = {
        "8x1": (8, 1), "2x4": (2, 4), "1x8": (1, 8), "plain": (2, 4, "--group_by_length", "False"),
        "budget": (2, 4, "--max_tokens_per_batch", "260"), "packed": (2, 4, "--packing"),
    }  # fmt: skip
    for name, way in ways.items():
        assert qlora.main(flags(name, *way)) == 0
        assert_near({name: logged(tmp_path / name)}, {name: expected})


def test_rows_that_do_not_fill_a_step_are_dropped_or_refused(make_base, command, capsys, monkeypatch, tmp_path):
    steps = watch(monkeypatch)
    flags = [*PADDED, "--dataloader_drop_last", "True", "--max_steps", "-1", "--num_train_epochs", "1"]
    assert qlora.main(command(make_base(), *flags, "--max_train_samples", "7")) == 0
    assert len(steps) == 1
    assert (
        qlora.main(command(make_base(), *flags, "--max_train_samples", "3", "--output_dir", str(tmp_path / "3"))) == 1
    )
    assert "not one step was trained" in capsys.readouterr().err


# ---- Evaluation and prediction -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gpt2"])
def test_generation_in_batches_is_generation_one_by_one(architecture, make_base, command, tmp_path):
    texts = []
    for size in ("1", "3"):
        out = tmp_path / size
        flags = ["--do_train", "False", "--do_predict", "--output_dir", str(out), "--per_device_eval_batch_size", size]
        assert qlora.main(command(make_base(architecture), *flags, "--eval_dataset_size", "7")) == 0
        lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
        texts.append([json.loads(line)["prediction_with_input"] for line in lines])
    assert len(texts[0]) == 7 and texts[0] == texts[1]


@pytest.mark.parametrize(("tokens", "batches"), [(0, [2, 2, 2, 1]), (400, [2, 3, 2]), (10_000, [7])])
def test_prompts_of_similar_length_are_answered_together(tokens, batches, make_base, command, tmp_path, monkeypatch):
    """The longest first, whatever the order of the rows, which is that of the lines; as many as their tokens allow."""
    monkeypatch.setattr(decoding, "BATCH_TOKENS", tokens)
    lengths, generate = [], trainer_module.QLoRATrainer.generate_from

    def watched(self, prompts):
        lengths.append(prompts["attention_mask"].sum(dim=1).tolist())
        return generate(self, prompts)

    monkeypatch.setattr(trainer_module.QLoRATrainer, "generate_from", watched)
    rows = [{"input": "word " * count, "output": "yes", "id": count} for count in (3, 40, 1, 20, 2, 30, 10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ["--do_train", "False", "--do_predict", "--eval_dataset", str(tmp_path / "rows.jsonl")]
    assert qlora.main(command(make_base(), *flags, "--per_device_eval_batch_size", "2")) == 0
    assert sum(lengths, []) == sorted(sum(lengths, []), reverse=True)
    assert [len(batch) for batch in lengths] == batches
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["id"] for line in lines] == [row["id"] for row in rows]
    assert all(line["prediction_with_input"].startswith(line["input"].strip()[:4]) for line in map(json.loads, lines))


def prompts_of(batch):
    """What generation starts from."""
    return {name.removeprefix(PROMPT): value for name, value in batch.items() if name.startswith(PROMPT)}


def test_generation_does_not_see_the_answer(make_base, make_args, command):
    """Rows that differ in their answers alone are continued alike."""
    trainer, module = trainer_of(command(make_base(), "--do_predict"))
    rows = [dict(row) for row in module.predict]
    other = [{**row, "output": "something else, and longer than it was"} for row in rows]
    collate = module.collator
    first, second = (trainer.generate_from(prompts_of(collate(batch))) for batch in (rows, other))
    assert torch.equal(first, second) and first.shape[1] <= 6


def test_generation_stops_at_eos(make_base, make_args, command):
    """A model that always writes EOS writes it once; the rest of the row is padding."""
    trainer, module = trainer_of(command(make_base(), "--do_predict"))
    eos = trainer.processing_class.eos_token_id
    trainer.generation.suppress_tokens = [t for t in range(len(trainer.processing_class)) if t != eos]
    written = trainer.generate_from(prompts_of(module.collator(list(module.predict))))
    assert written.tolist() == [[eos]] * len(written)


def test_generation_stops_at_the_mark_of_a_template_that_is_text(make_base, make_args, command, tmp_path, capsys):
    """ChatML where the vocabulary has no <|im_end|>: here the model writes nothing but x."""
    chat = tmp_path / "chat.jsonl"
    turns = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "It is."}]
    chat.write_text((json.dumps({"messages": turns}) + "\n") * 3, encoding="utf-8")
    template = REPOSITORY / "tests" / "fixtures" / "templates" / "chatml.jinja"
    flags = ["--do_predict", "--eval_dataset", str(chat), "--chat_template", str(template)]
    trainer, module = trainer_of(command(make_base(), *flags))
    assert "'<|im_end|>', which closes answers, is no token of this vocabulary but text" in capsys.readouterr().out
    assert trainer.generation.stop_strings == ["<|im_end|>"]
    x = trainer.processing_class.convert_tokens_to_ids("x")
    trainer.generation.suppress_tokens = [t for t in range(len(trainer.processing_class)) if t != x]
    trainer.generation.stop_strings = ["xx"]
    written = trainer.generate_from(prompts_of(module.collator(list(module.predict))))
    assert written.tolist() == [[x, x]] * 3


def test_evaluation_loss_is_weighted_by_tokens(make_base, make_args, command):
    """The same for every batch size, and the mean over all supervised tokens."""
    losses = []
    for size in ("1", "3", "8"):
        flags = ["--do_eval", "--eval_dataset_size", "8", "--per_device_eval_batch_size", size]
        trainer, module = trainer_of(command(make_base(), *flags))
        losses.append(trainer.evaluate()["eval_loss"])
    total = torch.zeros(2, dtype=torch.float64)
    for row in module.eval:
        inputs = {n: v for n, v in module.collator([row]).items() if not n.startswith("prompt_")}
        tokens = (inputs["labels"][:, 1:] != -100).sum().item()
        with torch.no_grad():
            total += torch.tensor([trainer.model(**inputs).loss.item() * tokens, tokens], dtype=torch.float64)
    assert losses == pytest.approx([(total[0] / total[1]).item()] * 3, rel=ROUNDING)


def test_evaluation_without_logits_to_keep_agrees(make_base, make_args, command):
    """Architectures whose forward pass cannot skip the head get the same numbers from full logits."""
    trainer, _ = trainer_of(command(make_base(), "--do_eval"))
    with_skipping = trainer.evaluate()["eval_loss"]
    trainer.skips_head = trainer.loss_in_pieces = False
    assert trainer.evaluate()["eval_loss"] == pytest.approx(with_skipping, rel=ROUNDING)


def test_prediction_keeps_the_order_of_the_data(make_base, command, rows_file, tmp_path):
    """Whatever the training order; transformers' own trainer reorders evaluation by length."""
    flags = ["--do_predict", "--eval_dataset", str(rows_file), "--train_sampling_strategy", "group_by_length"]
    assert qlora.main(command(make_base(), *flags, "--max_steps", "1", "--per_device_eval_batch_size", "5")) == 0
    lines = (tmp_path / "out" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in rows_file.read_text(encoding="utf-8").splitlines()]
    predicted = [json.loads(line) for line in lines]
    assert [row["output"] for row in predicted] == [row["output"] for row in rows]
    for row in predicted:
        assert row["prediction_with_input"].startswith(row["input"])
        assert row["prediction_with_input"].endswith(row["prediction"])


WAYS = {
    "full": ["--full_finetune", "--bits", "32", "--gradient_checkpointing", "False"],
    "full, checkpointing": ["--full_finetune", "--bits", "32", "--gradient_checkpointing"],
    "LoRA": ["--bits", "32", "--gradient_checkpointing", "False"],
    "LoRA, checkpointing": ["--bits", "32", "--gradient_checkpointing"],
    "QLoRA": ["--gradient_checkpointing", "False"],
    "QLoRA, checkpointing": ["--gradient_checkpointing"],
    "full, fp16": ["--full_finetune", "--bits", "16", "--fp16"],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_training_learns(way, make_base, make_args, command):
    """Finite, falling loss and the right number of trainable weights."""
    if "--fp16" in WAYS[way] and not torch.cuda.is_available():
        pytest.skip("fp16 training needs a CUDA GPU")
    full = "--full_finetune" in WAYS[way]
    rate = ["--learning_rate", "0.003" if full else "0.01", "--max_steps", "8", "--logging_steps", "1"]
    trainer, _ = trainer_of(command(make_base(), *WAYS[way], *rate, "--save_strategy", "no"))
    base_size = sum(p.numel() for n, p in trainer.model.named_parameters() if ".lora_" not in n)
    layers = {"q_proj": 64 + 64, "k_proj": 64 + 32, "v_proj": 64 + 32, "o_proj": 64 + 64, "mlp": 3 * (64 + 128)}
    expected = base_size if full else 2 * 4 * sum(layers.values())  # 2 layers, r = 4
    assert sum(p.numel() for p in trainer.model.parameters() if p.requires_grad) == expected
    checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in trainer.model.modules())
    assert not checkpointed  # switched on by train()
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(loss) for loss in losses)
    assert sum(losses[-3:]) / 3 < 0.95 * losses[0]
    checkpointed = any(getattr(m, "gradient_checkpointing", False) for m in trainer.model.modules())
    assert checkpointed == (WAYS[way][-1] == "--gradient_checkpointing")


@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
def test_other_architectures_learn_in_4_bits(architecture, make_base, make_args, command):
    flags = ["--max_steps", "8", "--logging_steps", "1", "--save_strategy", "no"]
    trainer, _ = trainer_of(command(make_base(architecture), *flags))
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert all(math.isfinite(loss) for loss in losses) and sum(losses[-3:]) / 3 < losses[0]


def test_diverging_run_ends_with_a_message(make_base, command, capsys):
    flags = ["--learning_rate", "1e30", "--max_grad_norm", "0", "--max_steps", "6", "--logging_steps", "1"]
    assert qlora.main(command(make_base(), *flags)) == 1
    assert "diverged" in capsys.readouterr().err
