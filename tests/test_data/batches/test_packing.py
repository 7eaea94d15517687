"""Packed rows: which go together, that they do not see one another, and that training on them is the same."""

import random
import signal

import pytest
import torch
from transformers import trainer_utils

import qlora
from common.errors import FailedRunError
from common.forward import EXACT, ROUNDED
from data.batches.packing import best_fit, pack
from data.batches.steps import StepCollator
from tests.support.flags import trainer_of
from tests.support.models import tiny_model, train
from tests.support.rounding import DESCENT, ROUNDING, ROUNDING_BF16, assert_near
from tests.test_training.loop.test_trainer import rows_of
from training.loop import packing
from training.loop import trainer as trainer_module
from training.loop.loss import supervised_only, takes_logits_to_keep
from training.loop.packing import packing_error, places_of, unpack
from training.loop.steps import collate_step
from training.model import base
from training.model.base import PACKABLE

LEAKY = ("bloom", "falcon", "mpt", "opt")  # their attention knows nothing of positions that restart


# ---- Bins ----------------------------------------------------------------------------------------------------------


def test_best_fit_decreasing():
    """First fit, or rows as they come, would need a bin more."""
    assert best_fit([5, 3, 4], 8) == [[0, 1], [2]]
    assert best_fit([4, 4, 5, 6, 6, 5], 10) == [[3, 0], [4, 1], [2, 5]]
    assert best_fit([6, 5, 2, 3, 4], 10) == [[0, 4], [1, 3, 2]]
    assert best_fit([7, 7, 7], 7) == [[0], [1], [2]]
    assert best_fit([], 7) == []


@pytest.mark.parametrize("seed", range(20))
def test_each_row_goes_where_least_room_is_left(seed):
    """Every row once, no bin over capacity, and each row in the fullest bin that took it, by brute force."""
    chance = random.Random(seed)
    lengths = [chance.randint(1, 64) for _ in range(chance.randint(1, 200))]
    expected: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        room = [(64 - sum(lengths[r] for r in rows), number) for number, rows in enumerate(expected)]
        fitting = [found for found in room if found[0] >= lengths[row]]
        if fitting:
            expected[min(fitting)[1]].append(row)
        else:
            expected.append([row])
    bins = best_fit(lengths, 64)
    assert bins == expected
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in rows) <= 64 for rows in bins)


def test_pack_and_unpack():
    batch = {
        "input_ids": torch.tensor([[5, 6, 2, 9, 9], [5, 7, 8, 2, 9], [4, 2, 9, 9, 9]]),
        "labels": torch.tensor([[-100, 6, 2, -100, -100], [5, 7, 8, 2, -100], [-100, 2, -100, -100, -100]]),
    }
    first, second = pack(batch, [3, 4, 2], [[1, 0], [2]])
    assert {name: value.tolist() for name, value in first.items()} == {
        "input_ids": [[5, 7, 8, 2, 5, 6, 2]],
        "labels": [[-100, 7, 8, 2, -100, 6, 2]],
        "position_ids": [[0, 1, 2, 3, 0, 1, 2]],
    }
    assert second["input_ids"].tolist() == [[4, 2]]
    assert {name: value.tolist() for name, value in unpack(first, 4).items()} == {
        "input_ids": [[5, 7, 8, 2], [5, 6, 2, 0]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 1, 0]],
        "labels": [[-100, 7, 8, 2], [-100, 6, 2, -100]],
    }
    assert unpack(first, 1)["input_ids"].tolist() == [[5, 6, 2]]


# ---- Architectures -------------------------------------------------------------------------------------------------


def sequence_of(lengths: list[int]):
    """Random rows packed into one sequence, and the same rows as a padded batch; two thirds are supervised."""
    torch.manual_seed(0)
    ids = torch.randint(4, 300, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    labels = ids.masked_fill(~mask | (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None] // 3), -100)
    batch = {"input_ids": ids, "attention_mask": mask.long(), "labels": labels}
    return pack(batch, lengths, [range(len(lengths))])[0], batch


@pytest.mark.parametrize("architecture", PACKABLE)
def test_packed_logits_are_the_unpacked_ones(architecture):
    """At every position of every row, for each architecture on the list."""
    model = tiny_model(architecture)
    model.config.use_cache = False
    sequence, batch = sequence_of([20, 15, 9, 7, 5])
    with torch.no_grad():
        packed = model(input_ids=sequence["input_ids"], position_ids=sequence["position_ids"]).logits[0]
        alone = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        alone = alone[batch["attention_mask"].bool()]
        assert_near(packed, alone)
        assert packing_error(model, sequence, takes_logits_to_keep(model)) < ROUNDING


@pytest.mark.parametrize("architecture", LEAKY)
def test_the_check_finds_an_architecture_that_leaks(architecture):
    model = tiny_model(architecture)
    model.config.use_cache = False
    assert architecture not in PACKABLE
    with torch.no_grad():
        assert packing_error(model, sequence_of([20, 15, 9, 7, 5])[0], takes_logits_to_keep(model)) > 10 * EXACT


def test_the_check_finds_what_would_make_a_known_architecture_leak():
    """With the cache on, attention is plainly causal whatever the positions say."""
    model = tiny_model("llama")
    sequence, _ = sequence_of([20, 15, 9, 7, 5])
    with torch.no_grad():
        assert model.config.use_cache and packing_error(model, sequence, skips_head=True) > 0.05
        model.config.use_cache = False
        assert packing_error(model, sequence, skips_head=True) < ROUNDING
        assert 0 < packing_error(model.to(torch.bfloat16), sequence, skips_head=True) < ROUNDED / 3


def test_no_row_predicts_the_first_token_of_the_next():
    """Though it is supervised with --train_on_source, and the loss moves labels by one."""
    batch = {"input_ids": torch.tensor([[5, 6, 7], [8, 9, 4]]), "labels": torch.tensor([[5, 6, 7], [8, 9, 4]])}
    kept = supervised_only(pack(batch, [3, 3], [[0, 1]])[0])
    assert kept["labels"].tolist() == [6, 7, 9, 4]
    assert kept["logits_to_keep"].tolist() == [[True, True, False, True, True, False]]


# ---- Training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", ["4", "8", "16", "32"])
def test_the_check_passes_with_weights_of_any_bits(bits, make_base, make_args, command, tmp_path, monkeypatch):
    """8-bit layers round what goes in, too; weights of a trained model's size show it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(make_base())
    for weight in model.parameters():
        weight.data.mul_(10 if weight.dim() > 1 else 1)
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(make_base()).save_pretrained(tmp_path / "base")
    trainer, module = trainer_of(command(tmp_path / "base", "--packing", "--bits", bits))
    take(trainer, module.step_collator, rows_of(module, 8))
    assert not trainer.trial


def take(trainer, make_micro_batches, rows):
    """The loss of one optimizer step of these rows, as the library asks for it."""
    steps = iter([collate_step(make_micro_batches, rows)])
    [step], items = trainer.get_batch_samples(steps, 1, trainer.args.device)
    return trainer.training_step(trainer.model, step, items)


def test_the_check_is_of_the_shortest_rows_and_once(make_base, make_args, command, monkeypatch):
    trainer, module = trainer_of(command(make_base(), "--packing"))
    checked = []
    monkeypatch.setattr(trainer_module, "check_packing", lambda model, step, *args: checked.append(step))
    for _ in range(2):
        take(trainer, module.step_collator, rows_of(module, 2))
    [[sequence]] = checked
    shortest = sorted(module.train["length"])[:4]
    assert sorted(map(len, places_of(sequence))) == shortest


def test_rows_that_stand_by_themselves_are_not_checked(make_base, make_args, command):
    trainer, module = trainer_of(command(make_base(), "--shared_prefix", "off"))
    assert not module.trial and not trainer.trial


@pytest.mark.parametrize(("error", "said"), [(float("nan"), "not finite"), (0.5, "50.0% away")])
def test_a_check_that_fails_stops_the_run(error, said, make_base, make_args, command, monkeypatch):
    trainer, module = trainer_of(command(make_base(), "--packing"))
    monkeypatch.setattr(packing, "packing_error", lambda *args: error)
    with pytest.raises(FailedRunError, match=said):
        take(trainer, module.step_collator, rows_of(module, 4))
    assert trainer.trial


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_neox", "gpt2", "gemma"])
@pytest.mark.parametrize("flags", [[], ["--train_on_source"], ["--label_smoothing_factor", "0.1"]], ids=str)
def test_packed_loss_and_gradient_are_the_unpacked_ones(architecture, flags, make_base, make_args, command):
    """One step of eight rows through the trainer: packed, in one padded batch, and in eight."""
    trainer, module = trainer_of(command(make_base(architecture), "--packing", *flags))
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:  # it starts at zero, where A has no gradient
            torch.nn.init.normal_(parameter, std=0.05)
    for layer in trainer.model.modules():  # GPT-2 has dropout of its own
        if isinstance(layer, torch.nn.Dropout):
            layer.p = 0.0
    rows = rows_of(module, 8)
    collator = module.collator
    ways = [StepCollator(collator, 1, pack_length=300), StepCollator(collator, 8), StepCollator(collator, 1)]
    results = []
    for way in ways:
        trainer.model.zero_grad()
        loss = take(trainer, way, rows)
        trained = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
        gradients = {name: p.grad.clone() for name, p in trained.items()}
        results.append((len(way(rows)), gradients | {"loss": loss}))
    (sequences, packed), *others = results
    assert 1 < sequences < 8 and [count for count, _ in others] == [1, 8]
    for _, padded in others:
        assert_near(packed, padded)
    assert not trainer.trial


@pytest.mark.parametrize("way", [[], ["--full_finetune", "--bits", "32"], ["--bf16"]], ids=["QLoRA", "full", "bf16"])
def test_packed_training_is_unpacked_training(way, make_base, command, tmp_path, adapter_of):
    """The same weights after four steps, over more than one epoch and its last, smaller step."""
    flags = [*way, "--max_steps", "4", "--logging_steps", "1", "--max_train_samples", "10", "--save_strategy", "no"]
    flags += DESCENT
    plain, plain_losses = train(command(make_base(), *flags, "--group_by_length", "False"), adapter_of, tmp_path / "1")
    packed, losses = train(command(make_base(), *flags, "--packing"), adapter_of, tmp_path / "2")
    bfloat16 = "--bf16" in way  # which keeps 8 bits: too few for several steps to end at the same weights
    assert_near(losses, plain_losses, ROUNDING_BF16 if bfloat16 else ROUNDING)
    if not bfloat16:
        assert_near(packed, plain)


def test_packed_run_resumes_bit_for_bit(make_base, command, tmp_path, adapter_of, stop_after, monkeypatch):
    """8 steps = SIGTERM after 5 + 3, with dropout."""
    argv = command(make_base(), "--packing", "--max_steps", "8", "--lora_dropout", "0.1", "--logging_steps", "1")
    one, losses = train(argv, adapter_of, tmp_path / "one")
    with monkeypatch.context() as context:
        stop_after(5)
        assert qlora.main([*argv, "--output_dir", str(tmp_path / "two")]) == 128 + signal.SIGTERM
        context.undo()
    monkeypatch.undo()
    warnings: list[str] = []  # such as of a batch size that is not the recorded one
    monkeypatch.setattr(trainer_utils.logger, "warning_once", warnings.append)
    two, resumed_losses = train(argv, adapter_of, tmp_path / "two")
    assert not warnings
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert len(losses) == 8 and losses == resumed_losses


# ---- Refusals ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opt_base(make_base, tmp_path):
    """Directory of a tiny OPT with the tiny tokenizer."""
    from transformers import AutoTokenizer

    tiny_model("opt").save_pretrained(tmp_path / "opt")
    AutoTokenizer.from_pretrained(make_base()).save_pretrained(tmp_path / "opt")
    return tmp_path / "opt"


def test_unknown_architecture_is_refused(opt_base, command, capsys, tmp_path):
    assert qlora.main(command(opt_base, "--packing")) == 2
    error = capsys.readouterr().err
    assert "--packing with a model of type opt" in error and "llama" in error
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_run_that_leaks_is_stopped_before_its_first_step(opt_base, command, capsys, tmp_path, monkeypatch):
    """As if a leaky architecture stood on the list."""
    monkeypatch.setattr(base, "PACKABLE", (*PACKABLE, "opt"))
    assert qlora.main(command(opt_base, "--packing", "--save_steps", "1")) == 1
    assert "leave --packing out" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_packing_without_training_needs_no_known_architecture(opt_base, command):
    flags = ["--packing", "--do_train", "False", "--do_eval"]
    assert qlora.main(command(opt_base, *flags)) == 0
