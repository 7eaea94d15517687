"""Rows in sequences without padding, what they begin with alike once: trees of rows, and that a step is the same."""

import json
import random

import pytest
import torch

import qlora
from common.labels import IGNORE_INDEX, LAYOUT, ROWS
from data.batches.collator import DataCollatorForCausalLM
from data.batches.shared import SharedBatchCollator, choose, grow, lay_out, shareable, size_of
from tests.support.flags import trainer_of
from tests.support.models import tiny_model, train, train_in_two
from tests.support.rounding import DESCENT, ROUNDING, assert_near
from training.loop.loss import row_losses, supervised_loss, supervised_losses, supervised_only
from training.loop.packing import packing_error, unpack
from training.shortcuts import attention
from training.shortcuts.attention import BY_ROWS_TYPES, attending, for_model, row_layout

# ---- Trees ---------------------------------------------------------------------------------------------------------


def sequence_of(rows, labels, worth):
    return lay_out(rows, labels, grow(rows, [shareable(row) for row in labels], worth))


def test_what_two_rows_begin_with_stands_once():
    rows = [[1, 7, 7, 4, 5], [1, 7, 7, 6, 8, 9]]
    labels = [[-100, -100, -100, -100, 5], [-100, -100, -100, -100, 8, 9]]
    sequence = sequence_of(rows, labels, worth=3)
    assert sequence["input_ids"].tolist() == [[1, 7, 7, 6, 8, 9, 4, 5]]
    assert sequence["labels"].tolist() == [[-100, -100, -100, -100, 8, 9, -100, 5]]
    assert sequence["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 3, 4]]
    assert sequence["rows"].tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 6, 7, -1]]
    assert sequence_of(rows, labels, worth=4)["input_ids"].tolist() == [[1, 7, 7, 6, 8, 9, 1, 7, 7, 4, 5]]


def test_no_token_is_shared_that_is_learned_or_predicts_one_that_is():
    assert shareable([-100, -100, -100, 4, 2]) == 2
    assert shareable([3, 4, 2]) == shareable([-100, 4]) == 0
    same = [[1, 3, 4, 5, 6, 2]] * 3
    sequence = sequence_of(same, [[-100, -100, -100, 5, 6, 2]] * 3, worth=1)
    assert sequence["input_ids"].tolist() == [[1, 3, *[4, 5, 6, 2] * 3]]
    assert int((sequence["labels"] != IGNORE_INDEX).sum()) == 9
    whole = sequence_of(same, same, worth=1)
    assert whole["input_ids"].tolist() == [[1, 3, 4, 5, 6, 2] * 3]
    assert whole["labels"].tolist() == [[-100, 3, 4, 5, 6, 2] * 3]  # what stands before a row's first is another row's


def random_rows(seed: int):
    """Rows that begin alike in several ways, some within one another; only the last tokens are learned."""
    chance = random.Random(seed)
    heads = [[chance.randint(4, 6) for _ in range(chance.randint(0, 60))] for _ in range(3)]
    starts = [head[: chance.randint(0, len(head))] for head in chance.choices(heads, k=chance.randint(1, 20))]
    rows = [start + [chance.randint(4, 6) for _ in range(chance.randint(3, 30))] for start in starts]
    return rows, [[IGNORE_INDEX] * (len(row) - 2) + row[-2:] for row in rows]


@pytest.mark.parametrize("seed", range(40))
def test_each_token_sees_its_row_and_nothing_else(seed):
    """What each token attends to, by the layout, is the beginning of a row up to it; every row is in one sequence."""
    rows, labels = random_rows(seed)
    limit = max(map(len, rows)) * (1 + seed % 3)
    sequences = choose(grow(rows, [shareable(row) for row in labels], worth=(1, 8, 32)[seed % 3]), limit)
    assert sorted(piece.row for pieces in sequences for piece in pieces if piece.leaf) == list(range(len(rows)))
    assert [size_of(pieces) for pieces in sequences] == sorted(map(size_of, sequences), reverse=True)
    for pieces in sequences:
        assert size_of(pieces) <= limit
        sequence = lay_out(rows, labels, pieces)
        ids = sequence["input_ids"][0]
        seen = []  # (token, what it sees), in the order of the outputs
        for group in sequence[LAYOUT]["groups"]:
            for queries, keys, positions in zip(group["queries"], group["keys"], group["positions"], strict=True):
                paths = [ids[keys[: position + 1]].tolist() for position in positions]
                seen += zip(queries.tolist(), paths, strict=True)
        places, paths = zip(*[seen[at] for at in sequence[LAYOUT]["order"]], strict=True)
        assert list(places) == list(range(len(ids)))
        assert [len(path) - 1 for path in paths] == sequence["position_ids"][0].tolist()
        assert all(rows[piece.row] in paths for piece in pieces if piece.leaf)
        learned = [row[-2:] for row in (rows[piece.row] for piece in pieces if piece.leaf)]
        assert sequence["labels"][sequence["labels"] != IGNORE_INDEX].tolist() == sum(learned, [])


# ---- Architectures -------------------------------------------------------------------------------------------------


def rows_that_begin_alike():
    """Seven rows behind two beginnings of which one goes on from the other, and one row by itself."""
    torch.manual_seed(0)
    header, longer = torch.randint(4, 300, (20,)).tolist(), torch.randint(4, 300, (14,)).tolist()
    starts = [header] * 3 + [header + longer] * 3 + [[]]
    rows = [start + torch.randint(4, 300, (6 + number,)).tolist() for number, start in enumerate(starts)]
    return rows, [[IGNORE_INDEX] * (len(row) - 4) + row[-4:] for row in rows]


def padded(rows, labels):
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]),
        "labels": torch.tensor([[*row, *[IGNORE_INDEX] * (longest - len(row))] for row in labels]),
    }


def step_of(model, batch):
    """Return the loss and the gradient of a batch."""
    model.zero_grad()
    batch = supervised_only(for_model(batch))
    keep, labels = batch.pop("logits_to_keep"), batch.pop("labels")
    with attending(model, batch):
        outputs = model(**batch, use_cache=False)
        outputs.logits = outputs.logits[keep]
        loss = supervised_loss(outputs, labels, torch.tensor(len(labels)))
        loss.backward()
    gradients = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    return loss.item(), torch.cat([gradient.flatten() for gradient in gradients.values()])


@pytest.mark.parametrize("architecture", BY_ROWS_TYPES)
def test_a_step_of_shared_rows_is_that_of_separate_rows(architecture):
    """Loss and gradient, for each architecture on the list; windows are shorter than the rows."""
    model = tiny_model(architecture)
    rows, labels = rows_that_begin_alike()
    sequence = sequence_of(rows, labels, worth=8)
    assert sequence["input_ids"].shape[1] < sum(map(len, rows)) - 80
    usual = model.config._attn_implementation
    separate, shared = step_of(model, padded(rows, labels)), step_of(model, sequence)
    assert model.config._attn_implementation == usual
    assert shared[0] == pytest.approx(separate[0], rel=ROUNDING)
    assert_near(shared[1], separate[1])
    assert packing_error(model, sequence, skips_head=False) < ROUNDING
    assert unpack(sequence, 7)["input_ids"].shape == (7, max(map(len, rows)))


def test_places_that_only_fill_up_see_something_within_a_window():
    """A short rest far into its row, beside a long one: filled up to that, it would reach far beyond its own row."""
    torch.manual_seed(0)
    header = torch.randint(4, 300, (40,)).tolist()
    rows = [header + torch.randint(4, 300, (6,)).tolist() for _ in range(2)] + [torch.randint(4, 300, (44,)).tolist()]
    labels = [[IGNORE_INDEX] * (len(row) - 4) + row[-4:] for row in rows]
    sequence = sequence_of(rows, labels, worth=8)
    assert len(sequence[LAYOUT]["groups"]) == 2  # the header, and all three rests together
    assert all(attention.sees(group, 6).any(dim=-1).all() for group in sequence[LAYOUT]["groups"])
    model = tiny_model("mistral")
    assert_near(step_of(model, sequence)[1], step_of(model, padded(rows, labels))[1])


def test_scores_that_are_capped_are_refused():
    with pytest.raises(NotImplementedError, match="softcap"):
        step_of(tiny_model("gemma2"), sequence_of(*rows_that_begin_alike(), worth=8))


@pytest.mark.parametrize(
    ("flags", "layout"),
    [
        ([], "shared"),
        (["--max_tokens_per_batch", "400"], "shared"),
        (["--full_finetune", "--bits", "32"], "shared"),
        (["--lora_dropout", "0.1"], "unpadded"),
        (["--shared_prefix", "off"], None),
        (["--packing"], None),
        (["--neftune_noise_alpha", "5"], None),
        (["--group_by_length", "False"], None),
        (["--torch_compile"], None),
    ],
)
def test_where_rows_are_shared(flags, layout, make_base, args_for):
    from transformers import AutoConfig

    from arguments.parser import Arguments

    config = AutoConfig.from_pretrained(make_base())
    training = Arguments.of(args_for(make_base(), *flags)).training
    assert row_layout(config, training) == layout
    if layout == "shared":
        config.attention_dropout = 0.1
        assert row_layout(config, training) == "unpadded"
        config.model_type = "bloom"
        assert row_layout(config, training) is None


# ---- Training ------------------------------------------------------------------------------------------------------

FOUR_STEPS = ["--max_steps", "4", "--logging_steps", "1", "--max_train_samples", "10", "--save_strategy", "no"]


@pytest.mark.parametrize(
    "way",
    [
        [],
        ["--max_tokens_per_batch", "300"],
        ["--full_finetune", "--bits", "32"],
        ["--train_on_source"],
        ["--gradient_checkpointing", "False", "--dataloader_num_workers", "2"],
    ],
    ids=["QLoRA", "budget", "full", "train_on_source", "no recomputation, workers"],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt_neox"])
def test_training_is_that_of_padded_rows(architecture, way, make_base, command, tmp_path, adapter_of):
    """The same weights after four steps, over more than one epoch and its last, smaller step."""
    argv = command(make_base(architecture), *way, *FOUR_STEPS, *DESCENT)
    off, losses_off = train([*argv, "--shared_prefix", "off"], adapter_of, tmp_path / "off")
    auto, losses = train(argv, adapter_of, tmp_path / "auto")
    assert_near(losses, losses_off)
    assert_near(auto, off)


@pytest.mark.parametrize("architecture", BY_ROWS_TYPES)
def test_losses_of_an_evaluation_are_those_of_each_row(architecture, tiny_tokenizer):
    """In the order of the batch, where the tree has the rows in another, and those without anything learned, too."""
    model = tiny_model(architecture)
    starts = [[20, 21, 22, 23] * 12, [20, 21, 22, 23] * 12 + [30] * 9, [40]]
    sources = [starts[number % 3] + [50 + number] * (number + 1) for number in range(7)]
    rows = [{"input_ids": [*row, 7, 8, 9], "labels": [IGNORE_INDEX] * len(row) + [7, 8, 9]} for row in sources]
    rows[4]["labels"] = [IGNORE_INDEX] * len(rows[4]["labels"])
    collator = DataCollatorForCausalLM(tiny_tokenizer, 100, 20, False, False)
    batch = SharedBatchCollator(collator)(rows)
    assert len(next(iter(batch.values()))) == len(rows)
    assert batch["input_ids"].numel() < sum(len(row["input_ids"]) for row in rows) - 100
    with torch.no_grad(), attending(model, batch):
        asked = supervised_only(for_model(batch))
        together = row_losses(supervised_losses(model, asked, True, False), asked, batch[ROWS])
        alone = [supervised_only(collator([row])) for row in rows]
    with torch.no_grad():
        apart = torch.cat([row_losses(supervised_losses(model, row, True, False), row) for row in alone])
    assert together[:, 1].tolist() == apart[:, 1].tolist() == [3, 3, 3, 3, 0, 3, 3]
    assert_near(together, apart)


def test_an_evaluation_over_shared_beginnings_gives_the_same(make_base, command, tmp_path):
    """Losses and answers through the command line, whatever the batches."""
    results = []
    for number, way in enumerate((["auto", "1"], ["auto", "5"], ["off", "5"])):
        flags = ["--max_steps", "1", "--do_eval", "--do_predict", "--shared_prefix", way[0]]
        flags += ["--per_device_eval_batch_size", way[1], "--output_dir", str(tmp_path / str(number))]
        assert qlora.main([*command(make_base()), *flags]) == 0
        metrics = json.loads((tmp_path / str(number) / "metrics.json").read_text(encoding="utf-8"))
        texts = (tmp_path / str(number) / "predictions.jsonl").read_text(encoding="utf-8")
        results.append(({n: metrics[n] for n in ("eval_loss", "predict_loss", "predict_supervised_tokens")}, texts))
    for numbers, texts in results[1:]:
        assert numbers == pytest.approx(results[0][0], rel=ROUNDING) and texts == results[0][1]


def test_a_shared_run_resumes_bit_for_bit(make_base, command, tmp_path, adapter_of, stop_after, monkeypatch):
    """8 steps = SIGTERM after 5 + 3."""
    argv = command(make_base(), "--max_steps", "8", "--logging_steps", "1")
    one, losses = train(argv, adapter_of, tmp_path / "one")
    two, resumed_losses = train_in_two(argv, adapter_of, tmp_path / "two", stop_after, monkeypatch)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert len(losses) == 8 and losses == resumed_losses


def test_rows_that_see_one_another_are_noticed_before_the_first_step(make_base, command, capsys, monkeypatch, tmp_path):
    def all_seen(group, window):
        return torch.ones(*group["queries"].shape, group["keys"].shape[1], dtype=torch.bool)[:, None]

    monkeypatch.setattr(attention, "sees", all_seen)
    assert qlora.main(command(make_base(), "--save_steps", "1")) == 1
    assert "give --shared_prefix off" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_the_report_says_what_is_saved(make_base, command):
    _, module = trainer_of(command(make_base(), "--do_train", "True"))
    batching = module.report["batching"]
    assert batching["strategy"] == "shared" and 0.1 < batching["shared_share"] < 0.9
    _, module = trainer_of(command(make_base(), "--lora_dropout", "0.1"))
    batching = module.report["batching"]
    assert batching["strategy"] == "unpadded" and batching["shared_share"] == batching["padding_share"] == 0
