"""Which process gets which rows of an optimizer step, and how its micro-batches come as one batch."""

import torch

from training.loop.steps import MICRO_BATCHES, StepSampler, collate_step


def test_every_process_gets_its_share_of_the_same_step():
    for processes in (1, 2, 3):
        sampler = StepSampler(range(20), 6, processes, drop_last=False)
        dealt = list(sampler)
        assert len(dealt) == len(sampler) == 4 * processes
        steps = [dealt[start : start + processes] for start in range(0, len(dealt), processes)]
        for step, first in zip(steps, (0, 6, 12, 18), strict=True):
            rows = sorted(row for share in step for row in share)
            expected = list(range(first, min(first + 6, 20)))
            assert rows == sorted(expected + [18] * max(processes - len(expected), 0))
            assert max(map(len, step)) - min(map(len, step)) <= 1
    assert list(StepSampler(range(7), 6, 3, drop_last=False))[3:] == [[6], [6], [6]]
    assert len(StepSampler(range(7), 6, 3, drop_last=True)) == 3


def test_steps_follow_the_order_that_is_put_there_later():
    """accelerate gives the sampler an order with a seed of its own."""
    sampler = StepSampler(range(4), 2, 1, drop_last=False)
    sampler.sampler = [3, 2, 1, 0]
    assert list(sampler) == [[3, 2], [1, 0]]


def test_rows_that_do_not_fill_a_step_can_be_left_out():
    assert list(StepSampler(range(5), 4, 2, drop_last=True)) == [[0, 2], [1, 3]]
    assert list(StepSampler(range(3), 4, 2, drop_last=True)) == []


def test_micro_batches_of_a_step_come_as_one_batch():
    first = {"input_ids": torch.tensor([[5, 6], [7, 3]]), "attention_mask": torch.tensor([[1, 1], [1, 0]])}
    second = {"input_ids": torch.tensor([[8, 9, 4]]), "attention_mask": torch.tensor([[1, 1, 1]])}
    given = []
    batch = collate_step(lambda rows: given.append(rows) or [first, second], ["row 1", "row 2", "row 3"])
    assert given == [["row 1", "row 2", "row 3"]]
    assert batch.keys() == {"input_ids", "attention_mask", MICRO_BATCHES}
    assert batch["input_ids"].tolist() == [5, 6, 7, 3, 8, 9, 4]
    assert batch["attention_mask"].tolist() == [1, 1, 1, 0, 1, 1, 1]
    assert batch[MICRO_BATCHES] == [first, second]


def test_tokens_of_packed_rows_which_have_no_mask_all_count():
    packed = {"input_ids": torch.tensor([[5, 6, 7]]), "position_ids": torch.tensor([[0, 1, 0]])}
    assert collate_step(lambda rows: [packed], [])["attention_mask"].tolist() == [1, 1, 1]
