"""What a run says at its end."""

from eval.report.summary import next_command
from tests.support.flags import arguments


def test_the_next_command_says_nothing_twice():
    asked = arguments(do_eval=True, do_train=False)
    command = ["--do_eval", "--do_train", "False"]
    expected = "python qlora.py --do_eval --do_train False --do_predict"
    assert next_command(asked.data, asked.training, command) == expected
    assert next_command(asked.data, arguments(do_eval=True).training, ["--do_eval"]) == expected
